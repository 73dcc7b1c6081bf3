import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { type Environment, Secret } from "../../config/index.ts";
import { messageOf, StowageError } from "../../errors/index.ts";
import type { Call, Progress } from "../../runtime/index.ts";
import { isErrno } from "../directory.ts";
import { askHelper, HelperFailure } from "./credential-helper.ts";

/** What proves to a registry who we are. */
export type Credentials =
  | { readonly kind: "basic"; readonly username: string; readonly password: Secret }
  /** Exchanged for tokens at the registry's token service. */
  | { readonly kind: "identity"; readonly token: Secret }
  /** Sent as it is. */
  | { readonly kind: "bearer"; readonly token: Secret };

const FILE_BYTES_MAX = 4 * 1024 * 1024;

const text = z.string().nullish();
const entrySchema = z.object({
  auth: text,
  username: text,
  password: text,
  identitytoken: text,
  registrytoken: text,
});
const fileSchema = z.object({
  auths: z.record(z.string(), entrySchema.nullish()).nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
  credsStore: text,
});

/** `docker`: a key names a host. `containers`: a key may name a repository or a part of its path too. */
type Style = "docker" | "containers";

/**
 * The credentials for a registry host: `$DOCKER_AUTH_CONFIG`, Docker's configuration file, then the files of podman and its kin.
 * `undefined` if there are none. A helper that fails is told, and the search goes on.
 * @throws StowageError `CONFIG_INVALID` for a file that can't be read or understood
 */
export async function findCredentials(
  host: string,
  repository: string,
  environment: Environment["credentials"],
  progress: Progress,
  call: Call,
): Promise<Credentials | undefined> {
  const { home, dockerConfigDirectory, dockerAuthConfig, registryAuthFile, runtimeDirectory, path } = environment;
  const files: { style: Style; name: string; content?: string }[] = [];
  if (dockerAuthConfig !== undefined) {
    files.push({ style: "docker", name: "DOCKER_AUTH_CONFIG", content: dockerAuthConfig });
  }
  files.push({ style: "docker", name: join(dockerConfigDirectory ?? join(home, ".docker"), "config.json") });
  if (registryAuthFile !== undefined) files.push({ style: "containers", name: registryAuthFile });
  if (runtimeDirectory !== undefined) {
    files.push({ style: "containers", name: join(runtimeDirectory, "containers", "auth.json") });
  }
  files.push({ style: "containers", name: join(home, ".config", "containers", "auth.json") });

  for (const { style, name, content } of files) {
    const json = content ?? (await readIfThere(name));
    if (json === undefined || json.trim() === "") continue;
    const file = parseFile(json, name);
    const keys = serverKeys(host);
    const own = (record: Readonly<Record<string, string>>) => keys.find((key) => Object.hasOwn(record, key));
    const helperKey = own(file.credHelpers ?? {});
    const helper = (helperKey === undefined ? undefined : file.credHelpers?.[helperKey]) ?? file.credsStore;
    if (helper) {
      try {
        const found = await askHelper(helper, helperKey ?? keys[0] ?? host, path, call);
        if (found !== undefined) return found;
      } catch (error) {
        if (!(error instanceof HelperFailure)) throw error;
        progress.tell(`the credential helper ${helper.slice(0, 100)} failed: ${error.message}; going on without it`);
      }
    }
    const entry = findEntry(file.auths ?? {}, keys, repository, style);
    const found = entry === undefined ? undefined : toCredentials(entry, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Names under which the credentials of a host are kept, the usual one first. */
function serverKeys(host: string): readonly string[] {
  return host === "registry-1.docker.io"
    ? ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
    : [host];
}

function findEntry(
  auths: Readonly<Record<string, z.output<typeof entrySchema> | null | undefined>>,
  keys: readonly string[],
  repository: string,
  style: Style,
): z.output<typeof entrySchema> | undefined {
  if (style === "containers") {
    // The most specific key wins: host/a/b, host/a, host.
    const parts = repository.split("/");
    for (let length = parts.length; length > 0; length--) {
      for (const key of keys) {
        const specific = `${key}/${parts.slice(0, length).join("/")}`;
        if (Object.hasOwn(auths, specific)) return auths[specific] ?? undefined;
      }
    }
  }
  for (const key of keys) if (Object.hasOwn(auths, key)) return auths[key] ?? undefined;
  const hostOf = (key: string) => key.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
  const hosts = new Set(keys.map(hostOf));
  for (const [key, entry] of Object.entries(auths)) {
    // In the containers form `host/path` is a repository, and one that fits was found above.
    if (style === "containers" && !key.includes("://") && key.includes("/")) continue;
    if (entry && hosts.has(hostOf(key))) return entry;
  }
  return undefined;
}

function toCredentials(entry: z.output<typeof entrySchema>, file: string): Credentials | undefined {
  if (entry.registrytoken) return { kind: "bearer", token: new Secret(entry.registrytoken) };
  if (entry.identitytoken) return { kind: "identity", token: new Secret(entry.identitytoken) };
  if (entry.auth) {
    // Docker pads with NUL bytes here and there.
    const decoded = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = decoded.indexOf(":");
    if (colon <= 0) throw invalidFile(file, "an auth entry is not base64 of user:password");
    return { kind: "basic", username: decoded.slice(0, colon), password: new Secret(decoded.slice(colon + 1)) };
  }
  if (entry.username && entry.password) {
    return { kind: "basic", username: entry.username, password: new Secret(entry.password) };
  }
  // `docker login` with a credential store leaves empty entries behind.
  return undefined;
}

function parseFile(json: string, name: string): z.output<typeof fileSchema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    // The cause would quote a piece of the file, which holds secrets.
    throw invalidFile(name, "not valid JSON");
  }
  const parsed = fileSchema.safeParse(value);
  if (!parsed.success) throw invalidFile(name, `not a Docker configuration: ${parsed.error.issues[0]?.message ?? ""}`);
  return parsed.data;
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    // Without waiting, and regular files only: a fifo would hang here.
    const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw invalidFile(file, "not a regular file");
      if (stat.size > FILE_BYTES_MAX) throw invalidFile(file, `larger than ${FILE_BYTES_MAX} bytes`);
      return await handle.readFile("utf8");
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isErrno(error, "ENOENT") || isErrno(error, "ENOTDIR")) return undefined;
    if (error instanceof StowageError) throw error;
    throw invalidFile(file, messageOf(error));
  }
}

function invalidFile(file: string, reason: string): StowageError {
  return new StowageError("CONFIG_INVALID", { file, reason });
}
