import { open } from "node:fs/promises";
import type { ClientConfig } from "pg";
import { type DatabaseSettings, effectiveSettings, parseDatabaseUrl } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Endpoint } from "./endpoint.ts";
import { isRefusedBySecurity } from "./failures.ts";

type TlsOptions = Exclude<NonNullable<ClientConfig["ssl"]>, boolean>;

const CERTIFICATE_BYTES_MAX = 1024 * 1024;

/**
 * The user's own PostgreSQL from its URL. What `settings` say wins over the URL's options.
 * @throws StowageError `CONFIG_INVALID`; the URL itself is never shown, since it may hold a password
 */
export async function openServerEndpoint(text: string, settings: DatabaseSettings = {}): Promise<Endpoint> {
  const { connectionString, description, isSocket, options } = parseDatabaseUrl(text);
  const effective = effectiveSettings(options, settings);
  const connectTimeoutMs = effective.connectTimeoutMs;
  const client = (ssl: ClientConfig["ssl"]): ClientConfig => ({ connectionString, keepAlive: true, ssl: ssl ?? false });
  const ways = isSocket ? [false as const] : await waysOf(effective);
  let way = 0;
  return {
    get client() {
      return client(ways[way]);
    },
    description,
    ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs }),
    adapt(error) {
      if (way + 1 >= ways.length || !isRefusedBySecurity(error)) return false;
      way += 1;
      return true;
    },
  };
}

/**
 * The ways to connect, in the order in which they are tried. `require` with a root certificate is `verify-ca`, as in libpq.
 * @see https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
 */
async function waysOf(settings: DatabaseSettings): Promise<readonly (false | TlsOptions)[]> {
  const { sslMode, sslRootCertificate, sslCertificate, sslKey } = settings;
  if (sslMode === "disable") return [false];
  const isRootNamed = sslRootCertificate !== undefined && sslRootCertificate !== "system";
  const own: TlsOptions = {
    ...(sslCertificate === undefined ? {} : { cert: await readCertificate("sslcert", sslCertificate) }),
    ...(sslKey === undefined ? {} : { key: await readCertificate("sslkey", sslKey) }),
  };
  const unverified: TlsOptions = { ...own, rejectUnauthorized: false };
  if (sslMode === "prefer") return [unverified, false];
  if (sslMode === "allow") return [false, unverified];
  if (sslMode === "require" && !isRootNamed) return [unverified];
  const verified: TlsOptions = {
    ...own,
    rejectUnauthorized: true,
    ...(isRootNamed ? { ca: await readCertificate("sslrootcert", sslRootCertificate) } : {}),
  };
  return [sslMode === "verify-full" ? verified : { ...verified, checkServerIdentity: () => undefined }];
}

async function readCertificate(key: string, path: string): Promise<string> {
  const fault = (reason: string) => new StowageError("CONFIG_INVALID", { key, file: path, reason });
  try {
    await using handle = await open(path, "r");
    const buffer = Buffer.alloc(CERTIFICATE_BYTES_MAX + 1);
    const { bytesRead } = await handle.read(buffer);
    if (bytesRead > CERTIFICATE_BYTES_MAX) throw fault(`it is larger than ${CERTIFICATE_BYTES_MAX} bytes`);
    const text = buffer.toString("latin1", 0, bytesRead);
    if (!text.includes("-----BEGIN ")) throw fault("it is not in PEM form");
    return text;
  } catch (error) {
    if (error instanceof StowageError) throw error;
    throw fault(`it can't be read: ${(error as NodeJS.ErrnoException).code ?? "unknown error"}`);
  }
}
