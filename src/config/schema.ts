import { z } from "zod";
import { defaultCompression, defaultDriver, defaultLayerCache, gigabyte, sslModes } from "./configuration.ts";

/**
 * The schemas of the keys of `config.yaml` that mean something here; those of `storage_driver.config` are the drivers' own.
 * `docs/reference/configuration.md` is made of their descriptions.
 */

const compression = z.strictObject({
  enabled: z.boolean().default(defaultCompression.enabled).describe("compress what is stored"),
  min_size_kbytes: z
    .number()
    .nonnegative()
    .max(2 ** 40)
    .default(defaultCompression.minSizeKbytes)
    .describe("only documents longer than this, in units of 1,024 bytes"),
  algorithm: z.enum(["zstd", "gzip"]).default(defaultCompression.algorithm).describe("how; a key of stowage's own"),
});

export const storeSection = z.strictObject({
  compression: compression.nullish(),
  storage_driver: z
    .strictObject({
      name: z.string().default(defaultDriver).describe("which driver"),
      config: z.unknown().optional().describe("the driver's own keys"),
    })
    .optional(),
  enabled: z.boolean().optional().describe("no meaning: a section that is there counts"),
  verify_content_digests: z.boolean().optional().describe("no meaning: digests are checked on every read"),
});

/** Numbers that come from a variable or stand in quotes are as good. */
const wholeNumber = (least: number, most: number) =>
  z
    .union([
      z.int(),
      z
        .string()
        .regex(/^-?\d{1,9}$/, "must be a whole number")
        .transform(Number),
    ])
    .pipe(z.int().min(least).max(most));

const path = z
  .string()
  .min(1)
  .refine((text) => !text.includes("\0"), "must be a path");

export const databaseArguments = z.looseObject({
  timeout: wholeNumber(0, 3600).nullish().describe("seconds that connecting may take (15)"),
  connect_timeout: wholeNumber(0, 3600).nullish().describe("the same; wins over timeout"),
  ssl: z.boolean().nullish().describe("true: at least sslmode require; a stricter sslmode stays"),
  sslmode: z.enum(sslModes).nullish().describe("as in PostgreSQL's own clients; wins over the URL's (prefer)"),
  sslrootcert: path
    .nullish()
    .describe(
      "a file of certificates, in PEM, of those who may sign the server's, or `system` for those that the system trusts",
    ),
  sslcert: path.nullish().describe("a file with the client's certificate"),
  sslkey: path.nullish().describe("a file with the key of the client's certificate"),
});

export const databaseSection = z.looseObject({
  db_connect: z
    .string()
    .min(1)
    .nullish()
    .describe(
      "URL: postgresql://USER:PASSWORD@HOST:PORT/NAME; postgresql+pg8000:// and any other postgresql+DRIVER:// mean the same",
    ),
  db_connect_args: databaseArguments.nullish(),
  db_pool_size: wholeNumber(0, 10_000)
    .nullish()
    .describe("connections at once, together with db_pool_max_overflow (8); 0: as many as are needed, up to 1000"),
  db_pool_max_overflow: wholeNumber(-1, 10_000)
    .nullish()
    .describe("added to db_pool_size (0); -1: as many as are needed, up to 1000"),
  user: z.string().min(1).nullish().describe("in place of db_connect: the user"),
  password: z.string().nullish().describe("in place of db_connect: the password"),
  host: z.string().min(1).nullish().describe("in place of db_connect: the host, or the directory of a socket"),
  port: wholeNumber(1, 65_535).nullish().describe("in place of db_connect: the port (5432)"),
  name: z.string().min(1).nullish().describe("in place of db_connect: the database"),
});

const gigabytesMessage = "must be a number of gigabytes";
/** From one gigabyte to a petabyte: a number, or, as a variable may have it, the text of one. */
const gigabytes = z
  .union(
    [
      z.number(),
      z
        .string()
        .regex(/^-?\d{1,9}([.]\d{1,9})?$/, gigabytesMessage)
        .transform(Number),
    ],
    gigabytesMessage,
  )
  .pipe(
    z
      .number()
      .max(1_000_000)
      // Charts write 0 where nobody wants a cache.
      .refine((value) => value >= 1, "must be at least 1; it is layer_cache_enable that turns the cache on and off"),
  );

/** What the cache needs of `services.analyzer`; other keys of that section are the original's. */
export const analyzerSection = z.looseObject({
  layer_cache_enable: z
    .boolean()
    .nullish()
    .describe(
      `keep the blobs of layers that registries sent, in anchore_layercache under tmp_dir (${defaultLayerCache.enabled})`,
    ),
  layer_cache_max_gigabytes: gigabytes
    .nullish()
    .describe(
      `what the layer cache may take up at most, in units of 10⁹ bytes; 1 or more (${defaultLayerCache.bytesMax / gigabyte})`,
    ),
});

export const topLevel = z.strictObject({
  tmp_dir: path.describe("where temporary files and the layer cache go (TMPDIR, else /tmp)"),
});
