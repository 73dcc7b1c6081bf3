import { databaseOpener } from "../../src/objects/drivers/db/index.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import type { BackendSections } from "../../src/objects/index.ts";

/** Files for the working set, the database for the archive. */
export function killSections(root: string): BackendSections {
  const files = {
    name: "localfs",
    settingsOf: () => ({ archive_data_dir: root }),
    open: (_config: unknown, _surroundings: unknown, call: Parameters<typeof openLocalFiles>[1]) =>
      openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, call),
  };
  return { workingSet: { opener: files, config: {} }, archive: { opener: databaseOpener, config: {} } };
}
