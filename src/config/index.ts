/** Configuration: what the environment and flags say, the limits, and secrets that don't print. The only reader of `process.env`. */
export {
  type Compression,
  type Configuration,
  type ConfigurationValue,
  type ConfigurationWarning,
  type DatabaseSettings,
  defaultCompression,
  defaultConfiguration,
  defaultDatabase,
  type LayerCacheSettings,
  type Source,
  type SslMode,
  type StoreSection,
} from "./configuration.ts";
export { databasePlace, effectiveSettings, parseDatabaseUrl, shownDatabaseUrl } from "./database-url.ts";
export { type Environment, readEnvironment } from "./environment.ts";
export { defaultLimits, type LimitName, type Limits, limitDefinitions, parseLimits } from "./limits.ts";
export { findConfigurationFile, readConfiguration, readStorageText } from "./read.ts";
export { maskSecrets, Secret } from "./secret.ts";
export type { StorageDriver } from "./store-sections.ts";
