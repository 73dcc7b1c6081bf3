import type { Secret } from "./secret.ts";

/** Where a value comes from: for messages, and for `config show`. */
export type Source =
  /** `variables` are those whose values stand in it. */
  | { readonly kind: "file"; readonly file: string; readonly line: number; readonly variables: readonly string[] }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "option"; readonly name: string }
  | { readonly kind: "default" };

/** One effective value of the configuration, as it may be shown: a secret is a {@link Secret}. */
export interface ConfigurationValue {
  /** Dotted path, as in `services.catalog.object_store.compression.enabled`. */
  readonly key: string;
  readonly value: string | number | boolean | null | Secret;
  readonly source: Source;
}

export interface Compression {
  readonly enabled: boolean;
  /** Documents longer than this are compressed, in units of 1,024 bytes. */
  readonly minSizeKbytes: number;
  readonly algorithm: "zstd" | "gzip";
}

/** A section that chooses a store. */
export interface StoreSection {
  /** Dotted path, as in `services.catalog.object_store`. */
  readonly place: string;
  /** The driver's own name, whichever alias the file uses. */
  readonly name: string;
  /** `storage_driver.config` as the driver's schema made it. */
  readonly config: unknown;
  readonly compression: Compression;
}

/** The cache of blobs that registries sent. */
export interface LayerCacheSettings {
  readonly enabled: boolean;
  /** What all that lies in its directory may take up. */
  readonly bytesMax: number;
}

/** How a connection to the user's PostgreSQL is made, beside its URL. */
export interface DatabaseSettings {
  /** As PostgreSQL's own clients understand it. Left out: `prefer`. */
  readonly sslMode?: SslMode;
  /** Where `sslMode` is left out: at least `require`, and more where the URL says so. */
  readonly isSslRequired?: boolean;
  /** Path of a file of certificates, or `system`. */
  readonly sslRootCertificate?: string;
  /** Path of the client's certificate. */
  readonly sslCertificate?: string;
  /** Path of the key of the client's certificate. */
  readonly sslKey?: string;
  readonly connectTimeoutMs?: number;
  /** Connections for statements and transactions. */
  readonly connectionsMax?: number;
}

/** From the weakest to the strongest. */
export const sslModes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
export type SslMode = (typeof sslModes)[number];

/** What holds of a connection where nothing is said. */
export const defaultDatabase = { sslMode: "prefer", connectTimeoutMs: 15_000, connectionsMax: 8 } as const;

export interface ConfigurationWarning {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

/** What a configuration file says, with the defaults where it says nothing. */
export interface Configuration {
  /** Path of the file; `undefined` when there is none. */
  readonly file: string | undefined;
  readonly objectStore: StoreSection;
  /** `undefined`: the store of the working set itself. */
  readonly analysisArchive: StoreSection | undefined;
  /** Stores that nothing new is written to, but that may still hold objects. */
  readonly otherObjectStores: readonly StoreSection[];
  /** `undefined`: the file names no database. */
  readonly database: { readonly url: Secret; readonly settings: DatabaseSettings } | undefined;
  /** `tmp_dir` */
  readonly temporaryDirectory: string | undefined;
  /** `layer_cache_enable` and `layer_cache_max_gigabytes` */
  readonly layerCache: LayerCacheSettings;
  /** All of the above in the file's own terms. */
  readonly values: readonly ConfigurationValue[];
  readonly warnings: readonly ConfigurationWarning[];
}

/** Far above any configuration. The YAML parser needs seconds for hostile files that are a few times larger. */
export const fileBytesMax = 256 * 1024;

export const defaultCompression: Compression = { enabled: false, minSizeKbytes: 100, algorithm: "zstd" };
export const defaultDriver = "db";
/** As the keys of the configuration count: not 2³⁰. */
export const gigabyte = 1e9;
export const defaultLayerCache: LayerCacheSettings = { enabled: false, bytesMax: gigabyte };
export const analyzerPlace = "services.analyzer";
export const objectStorePlace = "services.catalog.object_store";
export const analysisArchivePlace = "services.catalog.analysis_archive";
/** How a missing archive section is shown. */
export const sameStore = "the store of object_store";

const unset: Source = { kind: "default" };

/** What holds where there is no configuration file: everything is in the database, uncompressed. */
export const defaultConfiguration: Configuration = {
  file: undefined,
  objectStore: { place: objectStorePlace, name: defaultDriver, config: {}, compression: defaultCompression },
  analysisArchive: undefined,
  otherObjectStores: [],
  database: undefined,
  temporaryDirectory: undefined,
  layerCache: defaultLayerCache,
  values: [
    { key: `${objectStorePlace}.compression.enabled`, value: defaultCompression.enabled, source: unset },
    { key: `${objectStorePlace}.compression.min_size_kbytes`, value: defaultCompression.minSizeKbytes, source: unset },
    { key: `${objectStorePlace}.compression.algorithm`, value: defaultCompression.algorithm, source: unset },
    { key: `${objectStorePlace}.storage_driver.name`, value: defaultDriver, source: unset },
    { key: analysisArchivePlace, value: sameStore, source: unset },
    { key: `${analyzerPlace}.layer_cache_enable`, value: defaultLayerCache.enabled, source: unset },
    {
      key: `${analyzerPlace}.layer_cache_max_gigabytes`,
      value: defaultLayerCache.bytesMax / gigabyte,
      source: unset,
    },
  ],
  warnings: [],
};
