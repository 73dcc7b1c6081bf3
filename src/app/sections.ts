import type { Configuration, StoreSection } from "../config/index.ts";
import { databaseOpener } from "../objects/drivers/db/index.ts";
import type { BackendSection, BackendSections } from "../objects/index.ts";
import { loadDrivers } from "./load-drivers.ts";

/** The storage sections with their drivers. What lies in the database is always reached. */
export async function sectionsOf(configuration: Configuration): Promise<BackendSections> {
  const { objectStore, analysisArchive, otherObjectStores } = configuration;
  return {
    workingSet: await withDriver(objectStore),
    ...(analysisArchive === undefined ? {} : { archive: await withDriver(analysisArchive) }),
    others: [...(await Promise.all(otherObjectStores.map(withDriver))), { opener: databaseOpener, config: {} }],
  };
}

async function withDriver({ name, config, compression }: StoreSection): Promise<BackendSection> {
  if (name === databaseOpener.name) return { opener: databaseOpener, config, compression };
  const opener = (await loadDrivers()).find((driver) => driver.name === name);
  if (opener === undefined) throw new TypeError(`a configuration was read that names an unknown driver: ${name}`);
  return { opener, config, compression };
}
