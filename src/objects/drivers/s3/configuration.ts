import { z } from "zod";
import { Secret } from "../../../config/index.ts";

const secret = z
  .string()
  .min(1)
  .max(4096)
  .transform((value) => new Secret(value))
  .nullish();
const path = z
  .string()
  .min(1)
  .refine((value) => !value.includes("\0"), "must be a path");

/** What XML can't carry can't be listed. */
const printable = /^[^\p{Cc}\p{Cs}\ufffe\uffff]*$/u;

export const schema = z
  .strictObject({
    access_key: secret.describe("access key id"),
    secret_key: secret.describe("secret access key"),
    access_key_file: path.optional().describe("a file with the access key id, such as a mounted secret"),
    secret_key_file: path.optional().describe("a file with the secret access key"),
    iamauto: z
      .boolean()
      .nullish()
      .describe("look for credentials as AWS's tools do: environment, files, web identity, task or instance role"),
    url: z
      .union([z.string(), z.literal(false)])
      .nullish()
      .describe("where the server is, for example https://minio.example.com:9000; wins over region"),
    region: z
      .union([z.string(), z.literal(false)])
      .nullish()
      .describe("the bucket's region; beside a url, the region that requests are signed for (us-east-1)"),
    bucket: z
      .string()
      .regex(
        /^[A-Za-z0-9][A-Za-z0-9._:-]{1,254}$/,
        "must be a bucket's name: 3 to 63 lower-case letters, digits, dots and hyphens",
      )
      .describe("the bucket"),
    create_bucket: z.boolean().nullable().default(false).describe("make the bucket if it is not there"),
    prefix: z
      .string()
      .max(512)
      .regex(printable, "must not have control characters")
      .nullable()
      .default("")
      .describe("put before every key as it is, without a slash in between"),
    addressing_style: z
      .enum(["auto", "path", "virtual"])
      .default("auto")
      .describe("whether the bucket stands in the path or in the host name; auto: in the path where there is a url"),
    ca_file: path
      .optional()
      .describe("certificates, in PEM, of those who may sign the server's; no others are trusted"),
    storage_class: z
      .string()
      .regex(/^[A-Z0-9_]{1,64}$/, "must be the name of a storage class, for example STANDARD_IA")
      .optional()
      .describe("the storage class of new objects"),
    sse: z.enum(["AES256", "aws:kms", "aws:kms:dsse"]).optional().describe("encryption of new objects by the server"),
    sse_kms_key_id: z.string().min(1).max(2048).optional().describe("the key for sse: aws:kms"),
  })
  .superRefine((config, context) => {
    const refuse = (key: keyof typeof config, message: string) =>
      context.addIssue({ code: "custom", path: [key], message, input: config[key] });
    // As the original: a key that is there must have a value, but beside a url nobody asks for the region.
    if (config.url !== undefined) {
      const problem = config.url ? urlProblem(config.url) : "must have a value: leave the key out to use AWS";
      if (problem) refuse("url", problem);
    } else if (config.region !== undefined && !config.region) {
      refuse("region", "must have a value where there is no url: name the region, or leave the key out");
    }
    if (config.region && !/^[a-z0-9-]{1,64}$/.test(config.region)) refuse("region", "must be the name of a region");
    const pairs = [
      ["access_key", "secret_key"],
      ["access_key_file", "secret_key_file"],
    ] as const;
    for (const [one, other] of pairs) {
      if (config[one] && !config[other]) refuse(other, `is missing beside ${one}`);
      if (config[other] && !config[one]) refuse(one, `is missing beside ${other}`);
    }
    if ((config.access_key || config.secret_key) && (config.access_key_file || config.secret_key_file)) {
      refuse("access_key_file", "stands beside access_key: give one of them");
    }
    // Both there and null meant the SDK's own search.
    const isSearched = config.iamauto || (config.access_key === null && config.secret_key === null);
    if (!config.access_key && !config.secret_key && !config.access_key_file && !config.secret_key_file && !isSearched) {
      refuse("access_key", "is missing: give access_key and secret_key, their _file forms, or iamauto: true");
    }
    if (config.sse_kms_key_id !== undefined && !config.sse?.startsWith("aws:kms")) {
      refuse("sse_kms_key_id", "needs sse: aws:kms");
    }
  })
  .transform((config) => ({
    credentials: credentialsOf(config),
    /** Of a server that is not AWS, or that is named all the same. */
    url: config.url ? config.url.replace(/\/+$/, "") : undefined,
    region: config.region || undefined,
    bucket: config.bucket,
    createsBucket: config.create_bucket ?? false,
    prefix: config.prefix ?? "",
    isPathStyle: config.addressing_style === "path" || (config.addressing_style === "auto" && Boolean(config.url)),
    caFile: config.ca_file,
    storageClass: config.storage_class,
    encryption: config.sse,
    encryptionKey: config.sse_kms_key_id,
  }));

export type S3Configuration = z.output<typeof schema>;

/** Where keys come from. */
export type S3Credentials =
  | { readonly kind: "keys"; readonly accessKey: Secret; readonly secretKey: Secret }
  | { readonly kind: "files"; readonly accessKeyFile: string; readonly secretKeyFile: string }
  | { readonly kind: "search" };

interface CredentialKeys {
  readonly access_key?: Secret | null | undefined;
  readonly secret_key?: Secret | null | undefined;
  readonly access_key_file?: string | undefined;
  readonly secret_key_file?: string | undefined;
}

function credentialsOf(config: CredentialKeys): S3Credentials {
  if (config.access_key && config.secret_key) {
    return { kind: "keys", accessKey: config.access_key, secretKey: config.secret_key };
  }
  if (config.access_key_file && config.secret_key_file) {
    return { kind: "files", accessKeyFile: config.access_key_file, secretKeyFile: config.secret_key_file };
  }
  return { kind: "search" };
}

/** The place: bucket names of AWS are unique in all its regions, so neither region nor addressing tells one from another. */
export function settingsOf({ url, region, bucket, prefix }: S3Configuration): Readonly<Record<string, string>> {
  return { server: serverOf(url, region), bucket, prefix };
}

function serverOf(url: string | undefined, region: string | undefined): string {
  const host = url === undefined ? undefined : new URL(url).hostname;
  if (url !== undefined && !/[.]amazonaws[.]com([.]cn)?$/.test(host ?? ""))
    return new URL(url).href.replace(/\/+$/, "");
  const place = host ?? region ?? "";
  if (/(^|[.])cn-/.test(place)) return "aws-cn";
  return /(^|[.])us-gov-/.test(place) ? "aws-us-gov" : "aws";
}

function urlProblem(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    return "must begin with http:// or https://, for example https://minio.example.com:9000";
  }
  if (url.username || url.password) return "must not have credentials in it: use access_key and secret_key";
  return url.search || url.hash ? "must not have a ? or # in it: nothing may follow the path" : undefined;
}
