import { open } from "node:fs/promises";
import type { ClientConfig } from "pg";
import { type DatabaseSettings, type SslMode, sslModes } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { Endpoint } from "./endpoint.ts";
import { isRefusedBySecurity } from "./failures.ts";

type TlsOptions = Exclude<NonNullable<ClientConfig["ssl"]>, boolean>;

const CERTIFICATE_BYTES_MAX = 1024 * 1024;

/**
 * The user's own PostgreSQL from its URL. `postgresql://` and `postgres://` are taken, and the spellings that name a Python driver
 * (`postgresql+pg8000://`, `postgresql+psycopg2://`) as they stand in existing configurations. What `settings` say wins over the URL's options.
 * @throws StowageError `CONFIG_INVALID`; the URL itself is never shown, since it may hold a password
 */
export async function openServerEndpoint(text: string, settings: DatabaseSettings = {}): Promise<Endpoint> {
  const { connectionString, description, isSocket, options } = parseDatabaseUrl(text);
  const effective = { ...options, ...settings, sslMode: settings.sslMode ?? atLeast(settings, options.sslMode) };
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

/** `ssl: true` beside a stricter mode in the URL never weakens it. */
function atLeast({ isSslRequired }: DatabaseSettings, mode: SslMode = "prefer"): SslMode {
  return isSslRequired && sslModes.indexOf(mode) < sslModes.indexOf("require") ? "require" : mode;
}

interface ParsedUrl {
  readonly connectionString: string;
  /** `postgresql://user@host:port/database`: neither password nor options, which may name one. */
  readonly description: string;
  /** A socket of this machine: nothing is encrypted there. */
  readonly isSocket: boolean;
  /** What the URL's options say of the connection; they are taken out of it. */
  readonly options: DatabaseSettings;
}

/** @throws StowageError `CONFIG_INVALID` */
export function parseDatabaseUrl(text: string): ParsedUrl {
  const match = /^(postgres(?:ql)?)(\+[a-z0-9_]+)?:\/\//i.exec(text);
  if (match === null) throw invalid("it must begin with postgresql://");
  const connectionString = `postgresql://${text.slice(match[0].length)}`;
  let url: URL;
  try {
    url = new URL(connectionString);
    decodeURIComponent(url.username + url.password + url.pathname);
  } catch {
    throw invalid("it is not a valid URL (special characters in user or password must be percent-encoded)");
  }
  // A password with / or # in it would be taken for host and database, and shown as such.
  if (url.pathname.includes("@") || url.hash !== "") {
    throw invalid("special characters in user or password must be percent-encoded");
  }
  const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname);
  const user = url.username === "" ? "" : `${url.username}@`;
  const description = `postgresql://${user}${url.host || host}${url.pathname}`;
  const { options, isChanged } = takeOptions(url.searchParams);
  return {
    connectionString: isChanged ? url.href : connectionString,
    description,
    isSocket: host.startsWith("/"),
    options,
  };
}

const optionNames = [
  "sslmode",
  "ssl",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "connect_timeout",
  "uselibpqcompat",
] as const;

/** Out of the URL: `pg` would give `sslmode` a meaning of its own. */
function takeOptions(parameters: URLSearchParams): { readonly options: DatabaseSettings; readonly isChanged: boolean } {
  const taken: Partial<Record<(typeof optionNames)[number], string>> = {};
  for (const name of optionNames) {
    const value = parameters.get(name);
    if (value !== null) taken[name] = value;
    parameters.delete(name);
  }
  const { sslmode, ssl, sslrootcert, sslcert, sslkey, connect_timeout } = taken;
  const asked = sslmode ?? (ssl === undefined || /^(false|0|)$/.test(ssl) ? undefined : "require");
  const sslMode = asked === "no-verify" ? "require" : asked;
  if (sslMode !== undefined && !(sslModes as readonly string[]).includes(sslMode)) {
    throw invalid(`its sslmode must be one of: ${sslModes.join(", ")}`);
  }
  const seconds = Number(connect_timeout ?? 0);
  if (!(seconds >= 0 && seconds <= 3600)) throw invalid("its connect_timeout must be a number of seconds");
  const options: DatabaseSettings = {
    ...(sslMode === undefined ? {} : { sslMode: sslMode as SslMode }),
    ...(sslrootcert ? { sslRootCertificate: sslrootcert } : {}),
    ...(sslcert ? { sslCertificate: sslcert } : {}),
    ...(sslkey ? { sslKey: sslkey } : {}),
    ...(seconds > 0 ? { connectTimeoutMs: Math.ceil(seconds * 1000) } : {}),
  };
  return { options, isChanged: Object.keys(taken).length > 0 };
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

function invalid(reason: string): StowageError {
  return new StowageError(
    "CONFIG_INVALID",
    { key: "db-connect", reason: `the database URL is not usable: ${reason}` },
    { hint: "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE" },
  );
}
