import { z } from "zod";
import { Secret } from "../../../config/index.ts";
import { StowageError } from "../../../errors/index.ts";

const secret = z
  .string()
  .min(1)
  .transform((text) => new Secret(text));
const text = z.string().min(1).max(1024).optional();
const url = z
  .string()
  .refine(
    (value) => ["http:", "https:"].includes(URL.parse(value)?.protocol ?? ""),
    "must begin with http:// or https://",
  )
  .refine((value) => !URL.parse(value)?.username && !URL.parse(value)?.password, "must not contain a user or password")
  .optional();

const utf8Bytes = (value: string) => Buffer.byteLength(value);
const isDots = (segment: string) => segment === "." || segment === "..";

/** `storage_driver.config` as users know it; all but `container`, `create_container` and what is marked as ours are the names of Swift's own clients. */
const shape = z.strictObject({
  container: z
    .string({
      error: ({ input }) =>
        input === undefined ? "is required: the container that holds the objects" : "must be a string",
    })
    .refine(
      (name) => name !== "" && utf8Bytes(name) <= 256 && !name.includes("/") && !isDots(name) && name.isWellFormed(),
      {
        message: "must be a container's name: 1 to 256 bytes, no slash",
      },
    )
    .describe("the container that holds the objects"),
  create_container: z.boolean().default(false).describe("make the container if it is not there"),
  anchore_key_prefix: z
    .string()
    // Proxies in front of Swift resolve dots, and the object would be another one.
    .refine((prefix) => utf8Bytes(prefix) <= 512 && prefix.isWellFormed() && !prefix.split("/").some(isDots), {
      message: "must have at most 512 bytes, and no part that is only dots",
    })
    .default("")
    .describe("put before the name of each object, as it is"),
  segment_size_mbytes: z
    .int()
    .min(1)
    .max(5 * 1024)
    .default(1024)
    .describe("larger objects are stored in segments of this size (ours)"),

  auth: url.describe("v1: URL of the login"),
  user: text.describe("v1: user, often account:user"),
  key: secret.optional().describe("v1: the user's key"),
  key_file: text.describe("file that holds `key` (ours)"),

  auth_version: z
    .union([z.enum(["1", "1.0", "2", "2.0", "3", "3.0"]), z.literal([1, 2, 3])], { error: "must be 1.0, 2.0 or 3" })
    .transform((version) => Math.trunc(Number(version)) as 1 | 2 | 3)
    .optional()
    .describe("1.0 where auth, user and key are all given; else 3 where a domain is, else 2"),
  os_auth_url: url.describe("v2, v3: URL of Keystone"),
  os_username: text,
  os_user_id: text,
  os_password: secret.optional(),
  os_password_file: text.describe("file that holds `os_password` (ours)"),
  os_tenant_name: text,
  os_tenant_id: text,
  os_project_name: text,
  os_project_id: text,
  os_user_domain_name: text,
  os_user_domain_id: text,
  os_project_domain_name: text,
  os_project_domain_id: text,
  os_region_name: text.describe("region of the endpoint; else the first"),
  os_endpoint_type: z
    .enum(["publicURL", "internalURL", "adminURL", "public", "internal", "admin"])
    .default("publicURL")
    .transform((type) => type.replace("URL", "") as "public" | "internal" | "admin"),
  os_storage_url: url.describe("URL of the account, instead of the one that the login tells"),
  os_auth_token: secret.optional().describe("a token to begin with; needs os_storage_url"),
  os_cacert: text.describe("file of certificates (PEM) to trust"),
  insecure: z.boolean().default(false).describe("accept any certificate"),
  retries: z.int().min(0).max(1000).optional().describe("accepted for older files; stowage's own retries apply"),
});

export type SwiftConfig = z.output<typeof shape>;

/** The schema, with what depends on more than one key. */
export const schema = shape.superRefine((config, context) => {
  try {
    loginOf(config);
  } catch (error) {
    if (!(error instanceof StowageError)) throw error;
    const { key, reason } = error.details;
    context.addIssue({ code: "custom", path: [String(key)], message: String(reason) });
  }
});

/** A name or an id, of a user, project or domain. */
export type Named = { readonly name: string } | { readonly id: string };

/** A secret as it stands in the configuration, or the file that holds it: that one is read for each login, since mounted secrets change. */
export type SecretSource = { readonly value: Secret } | { readonly file: string };

export type Login =
  | { readonly version: 1; readonly authUrl: string; readonly user: string; readonly key: SecretSource }
  | {
      readonly version: 2;
      readonly authUrl: string;
      readonly user: string;
      readonly key: SecretSource;
      readonly project: Named | undefined;
    }
  | {
      readonly version: 3;
      readonly authUrl: string;
      readonly user: Named;
      readonly userDomain: Named;
      readonly key: SecretSource;
      readonly project: Named | undefined;
      readonly projectDomain: Named;
    };

/**
 * How to log in. `undefined`: with a token that is given.
 * @throws StowageError `CONFIG_INVALID` that names the key that is missing
 */
export function loginOf(config: SwiftConfig): Login | undefined {
  for (const [value, file] of [
    ["key", "key_file"],
    ["os_password", "os_password_file"],
  ] as const) {
    if (config[value] !== undefined && config[file] !== undefined)
      throw invalid(file, `can't be given beside ${value}`);
  }
  if (config.os_auth_token !== undefined) {
    if (config.os_storage_url === undefined) throw missing("os_storage_url", "a token (os_auth_token)");
    if (!hasLogin(config)) return undefined;
  }
  const version = versionOf(config);
  const isFirst = version === 1;
  const what = `a login of version ${version}`;
  // Each kind of name stands in for the other, as in Swift's own client.
  const authUrl = isFirst ? (config.auth ?? config.os_auth_url) : (config.os_auth_url ?? config.auth);
  if (authUrl === undefined) throw missing(isFirst ? "auth" : "os_auth_url", what);
  const user = isFirst ? (config.user ?? config.os_username) : (config.os_username ?? config.user);
  if (user === undefined && (version !== 3 || config.os_user_id === undefined))
    throw missing(isFirst ? "user" : "os_username", what);
  const own = sourceOf(config.key, config.key_file);
  const keystone = sourceOf(config.os_password, config.os_password_file);
  const key = isFirst ? (own ?? keystone) : (keystone ?? own);
  if (key === undefined) throw missing(isFirst ? "key" : "os_password", what);
  if (version === 1) return { version, authUrl, user: user as string, key };

  const project = named(config.os_project_name ?? config.os_tenant_name, config.os_project_id ?? config.os_tenant_id);
  if (version === 2) {
    const [tenant, name] = splitUser(user as string);
    if (project === undefined && tenant !== undefined)
      return { version, authUrl, user: name, key, project: { name: tenant } };
    if (project === undefined && config.os_storage_url === undefined) throw missing("os_tenant_name", what);
    return { version, authUrl, user: user as string, key, project };
  }
  if (project === undefined && config.os_storage_url === undefined) throw missing("os_project_name", what);
  const byDefault: Named = { id: "default" };
  return {
    version,
    authUrl,
    user: config.os_user_id === undefined ? { name: user as string } : { id: config.os_user_id },
    userDomain: named(config.os_user_domain_name, config.os_user_domain_id) ?? byDefault,
    key,
    project,
    projectDomain: named(config.os_project_domain_name, config.os_project_domain_id) ?? byDefault,
  };
}

/** What tells one place from another. The rest is how to get there. */
export function settingsOf(config: SwiftConfig): Record<string, string> {
  const settings: Record<string, string> = { container: config.container };
  const add = (name: string, value: string | undefined) => {
    if (value) settings[name] = value;
  };
  add("anchore_key_prefix", config.anchore_key_prefix);
  if (config.os_storage_url !== undefined) {
    add("os_storage_url", withoutSlash(config.os_storage_url));
    return settings;
  }
  const login = loginOf(config);
  add("auth", login && withoutSlash(login.authUrl));
  add("os_region_name", config.os_region_name);
  // With version 1 the user decides which account it is; most servers write account:user.
  if (login?.version === 1) add("account", splitUser(login.user)[0] ?? login.user);
  else if (login?.project) add("project", shown(login.project));
  if (login?.version === 3 && login.project && "name" in login.project)
    add("projectDomain", shown(login.projectDomain));
  return settings;
}

function hasLogin(config: SwiftConfig): boolean {
  return (config.auth ?? config.os_auth_url) !== undefined;
}

function versionOf(config: SwiftConfig): 1 | 2 | 3 {
  if (config.auth_version !== undefined) return config.auth_version;
  const key = config.key ?? config.key_file;
  if (config.auth !== undefined && config.user !== undefined && key !== undefined) return 1;
  const keystone = Object.entries(config).some(
    ([name, value]) => name.startsWith("os_") && name !== "os_endpoint_type" && value !== undefined,
  );
  // Somebody who gives part of the old names is told which of them is missing, not a Keystone name.
  if (!keystone) return 1;
  const domains = [
    config.os_user_domain_name,
    config.os_user_domain_id,
    config.os_project_domain_name,
    config.os_project_domain_id,
  ];
  return domains.some((domain) => domain !== undefined) ? 3 : 2;
}

/** `account:user`. */
function splitUser(user: string): [string | undefined, string] {
  const at = user.indexOf(":");
  return at < 1 ? [undefined, user] : [user.slice(0, at), user.slice(at + 1)];
}

function sourceOf(value: Secret | undefined, file: string | undefined): SecretSource | undefined {
  if (value !== undefined) return { value };
  return file === undefined ? undefined : { file };
}

function named(name: string | undefined, id: string | undefined): Named | undefined {
  if (id !== undefined) return { id };
  return name === undefined ? undefined : { name };
}

function shown(named: Named): string {
  return "id" in named ? `id ${named.id}` : named.name;
}

function withoutSlash(value: string): string {
  return new URL(value).href.replace(/\/+$/, "");
}

function missing(key: string, what: string): StowageError {
  return invalid(key, `is missing: ${what} needs it`);
}

function invalid(key: string, reason: string): StowageError {
  return new StowageError("CONFIG_INVALID", { key, reason });
}
