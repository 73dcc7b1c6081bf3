import { StowageError } from "../errors/index.ts";
import { type DatabaseSettings, defaultDatabase, type SslMode, sslModes } from "./configuration.ts";

const MASK = "********";

/**
 * A database URL as it may be shown: without its password, and without its options, one of which may be a password. Where an unencoded character makes it
 * doubtful what belongs to the password, nothing is shown.
 */
export function shownDatabaseUrl(url: string): string {
  const match =
    /^(postgres(?:ql)?(?:\+\w{1,20})?:\/\/)(?:([^:/?#@]*)(:[^/?#]*)?@)?([^:/?#@]*|\[[\da-f:.]*\])(:\d{1,5})?(\/[^/?#@]*)?(\?[^@]*)?$/is.exec(
      url,
    );
  if (match === null) return MASK;
  const [, scheme = "", user, password, host = "", port = "", name = "", query] = match;
  const login = user === undefined ? "" : `${user}${password === undefined ? "" : `:${MASK}`}@`;
  return `${scheme}${login}${host}${port}${name}${query === undefined ? "" : "?…"}`;
}

/** Which database a URL means, whoever logs in and however: host, port and name. What is no URL stands for itself. */
export function databasePlace(text: string): string {
  try {
    const url = new URL(text.replace(/^postgres(ql)?(\+\w+)?:/i, "postgresql:"));
    const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname);
    const port = url.searchParams.get("port") ?? url.port;
    const name = decodeURIComponent(url.pathname.slice(1)) || decodeURIComponent(url.username);
    return JSON.stringify([host.toLowerCase(), port || "5432", name]);
  } catch {
    return text;
  }
}

/** A database URL, taken apart. */
interface ParsedUrl {
  readonly connectionString: string;
  /** `postgresql://user@host:port/database`: neither password nor options, which may name one. */
  readonly description: string;
  /** A socket of this machine: nothing is encrypted there. */
  readonly isSocket: boolean;
  /** What the URL's options say of the connection; they are taken out of it. */
  readonly options: DatabaseSettings;
  /** Texts that hold a password, or may: shown nowhere. */
  readonly secrets: readonly string[];
}

/** Who gave the URL, for messages. */
interface UrlPlace {
  readonly key: string;
  readonly file?: string;
  readonly line?: number;
}

/**
 * The one judge of database URLs, whoever gives them. `postgresql://` and `postgres://` are taken, and the spellings that name a Python driver
 * (`postgresql+pg8000://`, `postgresql+psycopg2://`) as they stand in existing configurations: whatever the driver, the server is meant.
 * @throws StowageError `CONFIG_INVALID`; the URL itself is never shown, since it may hold a password
 */
export function parseDatabaseUrl(text: string, at: UrlPlace = { key: "db-connect" }): ParsedUrl {
  const invalid = (reason: string) =>
    new StowageError(
      "CONFIG_INVALID",
      { ...at, reason: `the database URL is not usable: ${reason}` },
      { hint: "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE" },
    );
  const match = /^(postgres(?:ql)?)(\+[a-z0-9_]+)?:\/\//i.exec(text);
  if (match === null) throw invalid("it must begin with postgresql://");
  const connectionString = `postgresql://${text.slice(match[0].length)}`;
  let url: URL;
  try {
    url = new URL(connectionString);
    for (const part of [url.username, url.password, url.hostname, url.pathname]) decodeURIComponent(part);
  } catch {
    throw invalid(
      "it is not a valid URL (special characters in user, password, host or database must be percent-encoded)",
    );
  }
  // A password with / or # in it would be taken for host and database, and shown as such.
  if (url.pathname.includes("@") || url.hash !== "") {
    throw invalid("special characters in user or password must be percent-encoded");
  }
  const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname);
  const user = url.username === "" ? "" : `${url.username}@`;
  const description = `postgresql://${user}${url.host || host}${url.pathname}`;
  // Any option may be a password.
  const isOpen = url.password === "" && url.search === "";
  const { search } = url;
  const { options, isChanged } = takeOptions(url.searchParams, invalid);
  // The driver leaves these characters of a database's name encoded, and where anything is not encoded it encodes all once more.
  url.pathname = url.pathname.replace(/%(?:2[46BCF]|3[ABD]|40)/gi, decodeURIComponent);
  if (!isChanged && !/%(?![\da-f]{2})/i.test(search)) url.search = search;
  return {
    connectionString: url.href,
    description,
    isSocket: host.startsWith("/"),
    options,
    secrets: isOpen ? [] : [text, connectionString, url.href],
  };
}

/** What holds of a connection: what is said beside the URL wins over the URL's options. `ssl: true` beside a stricter mode in the URL never weakens it. */
export function effectiveSettings(
  ofUrl: DatabaseSettings,
  settings: DatabaseSettings,
): DatabaseSettings & { readonly sslMode: SslMode } {
  const { sslMode = defaultDatabase.sslMode } = ofUrl;
  const isTooWeak = settings.isSslRequired && sslModes.indexOf(sslMode) < sslModes.indexOf("require");
  return { ...ofUrl, ...settings, sslMode: settings.sslMode ?? (isTooWeak ? "require" : sslMode) };
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
function takeOptions(
  parameters: URLSearchParams,
  invalid: (reason: string) => StowageError,
): { readonly options: DatabaseSettings; readonly isChanged: boolean } {
  const taken: Partial<Record<(typeof optionNames)[number], string>> = {};
  for (const name of optionNames) {
    const value = parameters.get(name);
    if (value !== null) taken[name] = value;
    parameters.delete(name);
  }
  const { sslmode, ssl, sslrootcert, sslcert, sslkey, connect_timeout } = taken;
  const asked = sslmode ?? modeOfSsl(ssl);
  const sslMode = asked === "no-verify" ? "require" : asked;
  if (sslMode !== undefined && !isSslMode(sslMode)) {
    throw invalid(`its sslmode must be one of: ${sslModes.join(", ")}`);
  }
  const seconds = Number(connect_timeout ?? 0);
  if (!(seconds >= 0 && seconds <= 3600)) throw invalid("its connect_timeout must be a number of seconds");
  const options: DatabaseSettings = {
    ...(sslMode === undefined ? {} : { sslMode }),
    ...(sslrootcert ? { sslRootCertificate: sslrootcert } : {}),
    ...(sslcert ? { sslCertificate: sslcert } : {}),
    ...(sslkey ? { sslKey: sslkey } : {}),
    ...(seconds > 0 ? { connectTimeoutMs: Math.ceil(seconds * 1000) } : {}),
  };
  return { options, isChanged: Object.keys(taken).length > 0 };
}

/** Some drivers name the mode here; elsewhere it says whether connections are encrypted at all. */
function modeOfSsl(ssl: string | undefined): string | undefined {
  if (ssl === undefined || /^(false|0|)$/.test(ssl)) return undefined;
  return isSslMode(ssl) ? ssl : "require";
}

function isSslMode(text: string): text is SslMode {
  return (sslModes as readonly string[]).includes(text);
}
