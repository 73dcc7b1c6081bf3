import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { createCall } from "../../../runtime/index.ts";
import { readBytes } from "./file-reader.ts";
import { openLocalFiles } from "./local-files-driver.ts";

describeDriver("the localfs driver", async () => {
  const parent = await mkdtemp(join(tmpdir(), "stowage-localfs-"));
  const root = join(parent, "made", "as needed");
  const driver = await openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, createCall());
  // A fresh ext4 volume has one.
  await mkdir(join(root, "lost+found"));
  return {
    driver,
    chunkBytes: readBytes,
    async remains() {
      const entries = await readdir(root, { recursive: true, withFileTypes: true });
      return entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
    },
    [Symbol.asyncDispose]: () => rm(parent, { recursive: true }),
  };
});
