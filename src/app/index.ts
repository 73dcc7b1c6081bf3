/** The application as its commands and its server see it. The only room that knows which drivers there are. */
export type * from "./application.ts";
export { type FoundLayerCache, findLayerCache } from "./layer-cache.ts";
export { loadDrivers } from "./load-drivers.ts";
export {
  type MigrationJournal,
  type MigrationRequest,
  type MigrationSurvey,
  type MigrationWork,
  type Migrator,
  type MigratorOptions,
  openMigrationJournal,
  openMigrator,
  type RecordedMigration,
} from "./migrator.ts";
export type * from "./object-storage.ts";
export { openApplication } from "./open.ts";
export { type BackendCheck, openStoreCheck, type StoreCheck, type StoreName } from "./store-check.ts";
