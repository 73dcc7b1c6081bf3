import {
  type Configuration,
  type ConfigurationValue,
  type DatabaseSettings,
  defaultDatabase,
  type Source,
  type SslMode,
  sslModes,
} from "./configuration.ts";
import { effectiveSettings, parseDatabaseUrl, shownDatabaseUrl } from "./database-url.ts";
import { interpret, invalid, isEmpty, knownKeys, type Place, unknownKey } from "./interpret.ts";
import { nearestKey, visibleKey } from "./keys.ts";
import { isOriginalKey } from "./original-keys.ts";
import { databaseArguments, databaseSection } from "./schema.ts";
import { Secret } from "./secret.ts";
import { mapOf, sourceOf } from "./store-sections.ts";
import type { MapEntry, MapTree } from "./yaml-tree.ts";

const place = "credentials.database";

/** A pool without a limit still gets one. */
const CONNECTIONS_MAX = 1000;
/** The original's own, where only the overflow is given. */
const POOL_SIZE = 30;

/** Parts of `db_connect`, and so without meaning beside it. */
const partNames: readonly string[] = ["user", "password", "host", "port", "name"];

interface ReadDatabase {
  readonly database: Configuration["database"];
  readonly values: readonly ConfigurationValue[];
  /** What the file says and nothing does. */
  readonly warnings: readonly { readonly line: number; readonly text: string }[];
}

/**
 * `credentials.database`: a URL, or its parts.
 * @throws StowageError `CONFIG_INVALID`
 */
export function readDatabaseSection(entry: MapEntry, file: string): ReadDatabase {
  const at: Place = { file, key: place, line: entry.line };
  const tree = mapOf(entry.value, at);
  refuseMisspelt(tree, at, knownKeys(databaseSection));
  const section = interpret(tree, databaseSection, at);
  const inner = tree.entries.get("db_connect_args");
  const innerPlace = { ...at, key: `${place}.db_connect_args`, line: inner?.line ?? entry.line };
  const innerTree = inner === undefined || isEmpty(inner.value) ? undefined : mapOf(inner.value, innerPlace);
  if (innerTree !== undefined) refuseMisspelt(innerTree, innerPlace, knownKeys(databaseArguments));
  const isWhole = section.db_connect != null;
  const text = section.db_connect ?? urlOfParts(section, tree, at);
  if (text === undefined) return noDatabase(tree, at);
  const urlEntry = tree.entries.get(isWhole ? "db_connect" : "host");
  const url = parseDatabaseUrl(text, {
    key: `${place}.${isWhole ? "db_connect" : "host"}`,
    file,
    line: urlEntry?.line ?? at.line,
  });
  const settings = settingsOf(section);
  const hasNoEffect = (key: string) => isWhole && partNames.includes(key);
  const unused = [...tree.entries].find(([key, { value }]) => hasNoEffect(key) && !isEmpty(value));
  return {
    database: { url: new Secret(text, url.secrets), settings },
    values: [
      ...valuesOf(section, tree, at).filter(({ key }) => !hasNoEffect(key.slice(place.length + 1))),
      ...(innerTree === undefined ? [] : valuesOf(section.db_connect_args ?? {}, innerTree, innerPlace)),
      ...impliedValues(section, effectiveSettings(url.options, settings), url.options, sourceOf(urlEntry, file)),
    ],
    warnings:
      unused === undefined
        ? []
        : [{ line: unused[1].line, text: `${place}.${unused[0]} is not used: ${place}.db_connect is there` }],
  };
}

/** Who writes a key for the database's address and no value into it does not mean the embedded one. */
function noDatabase(tree: MapTree, at: Place): ReadDatabase {
  const [key, found] = [...tree.entries].find(([each]) => each === "db_connect" || partNames.includes(each)) ?? [];
  if (key !== undefined) {
    throw invalid(
      { ...at, key: `${place}.${key}`, line: found?.line ?? at.line },
      "it is empty",
      "write the database's URL; for the embedded database take credentials.database out",
    );
  }
  const text = `${place} names no database: it has no db_connect, so nothing of it is used`;
  return { database: undefined, values: [], warnings: [{ line: at.line, text }] };
}

/** What the file says. */
function valuesOf(section: object, tree: MapTree, at: Place): readonly ConfigurationValue[] {
  const known = new Set(knownKeys(at.key === place ? databaseSection : databaseArguments));
  return Object.entries(section)
    .filter(([key, value]) => key !== "db_connect_args" && known.has(key) && value != null)
    .map(([key, value]) => ({
      key: `${at.key}.${key}`,
      value: shown(key, value),
      source: sourceOf(tree.entries.get(key), at.file),
    }));
}

function shown(key: string, value: unknown): ConfigurationValue["value"] {
  if (key === "db_connect" && typeof value === "string") return shownDatabaseUrl(value);
  return key === "password" ? new Secret(String(value)) : (value as string | number);
}

/** What holds though no key says it: the URL does, or nobody. */
function impliedValues(
  { db_pool_size: size, db_pool_max_overflow: overflow, db_connect_args: given }: Section,
  { sslMode, connectTimeoutMs = defaultDatabase.connectTimeoutMs }: DatabaseSettings,
  ofUrl: DatabaseSettings,
  source: Source,
): readonly ConfigurationValue[] {
  const value = (key: string, text: string | number, isOfUrl = false): ConfigurationValue => ({
    key: `${place}.${key}`,
    value: text,
    source: isOfUrl ? source : { kind: "default" },
  });
  const isTimed = given?.timeout || given?.connect_timeout;
  return [
    ...(isTimed
      ? []
      : [value("db_connect_args.timeout", connectTimeoutMs / 1000, ofUrl.connectTimeoutMs !== undefined)]),
    ...(given?.sslmode == null && sslMode !== undefined
      ? [value("db_connect_args.sslmode", sslMode, ofUrl.sslMode === sslMode)]
      : []),
    ...(size == null ? [value("db_pool_size", overflow == null ? defaultDatabase.connectionsMax : POOL_SIZE)] : []),
    ...(overflow == null ? [value("db_pool_max_overflow", 0)] : []),
  ];
}

interface Section {
  readonly user?: string | null | undefined;
  readonly password?: string | null | undefined;
  readonly host?: string | null | undefined;
  readonly port?: number | null | undefined;
  readonly name?: string | null | undefined;
  readonly db_pool_size?: number | null | undefined;
  readonly db_pool_max_overflow?: number | null | undefined;
  readonly db_connect_args?:
    | {
        readonly timeout?: number | null | undefined;
        readonly connect_timeout?: number | null | undefined;
        readonly ssl?: boolean | null | undefined;
        readonly sslmode?: SslMode | null | undefined;
        readonly sslrootcert?: string | null | undefined;
        readonly sslcert?: string | null | undefined;
        readonly sslkey?: string | null | undefined;
      }
    | null
    | undefined;
}

function urlOfParts(section: Section, tree: MapTree, at: Place): string | undefined {
  const { user, password, host, port, name } = section;
  if (user == null && host == null && name == null && password == null && port == null) return undefined;
  for (const key of ["user", "host", "name"] as const) {
    if (section[key] == null) {
      const line = tree.entries.get(key)?.line ?? at.line;
      throw invalid(
        { ...at, key: `${place}.${key}`, line },
        "it is missing",
        "give user, password, host, port and name, or db_connect",
      );
    }
  }
  const login = [user, ...(password == null ? [] : [password])].map((part) => encodeURIComponent(part ?? ""));
  const encoded = login.join(":");
  const database = encodeURIComponent(name ?? "");
  // A path is the directory of a socket. Without a host no URL has a user before it.
  if (host?.startsWith("/")) {
    const [encodedUser, encodedPassword] = login;
    const secret = encodedPassword === undefined ? "" : `&password=${encodedPassword}`;
    const where = `host=${encodeURIComponent(host)}&port=${port ?? 5432}`;
    return `postgresql:///${database}?${where}&user=${encodedUser}${secret}`;
  }
  const isAddress6 = host?.includes(":") && !host.startsWith("[");
  return `postgresql://${encoded}@${isAddress6 ? `[${host}]` : encodeURIComponent(host ?? "").replace(/%5B|%5D|%3A/g, decodeURIComponent)}:${port ?? 5432}/${database}`;
}

function settingsOf(section: Section): DatabaseSettings {
  const { ssl, sslmode, sslrootcert, sslcert, sslkey, timeout, connect_timeout } = section.db_connect_args ?? {};
  // `ssl: true` asks for encryption: it never takes a stricter mode back.
  const isTooWeak = ssl === true && sslmode != null && sslModes.indexOf(sslmode) < sslModes.indexOf("require");
  const sslMode = isTooWeak ? "require" : sslmode;
  const seconds = connect_timeout ?? timeout;
  const connections = connectionsOf(section);
  return {
    ...(sslMode == null ? {} : { sslMode }),
    ...(ssl === true && sslMode == null ? { isSslRequired: true } : {}),
    ...(sslrootcert == null ? {} : { sslRootCertificate: sslrootcert }),
    ...(sslcert == null ? {} : { sslCertificate: sslcert }),
    ...(sslkey == null ? {} : { sslKey: sslkey }),
    // 0 would be without an end, which nothing here is.
    ...(seconds == null || seconds === 0 ? {} : { connectTimeoutMs: seconds * 1000 }),
    ...(connections === undefined ? {} : { connectionsMax: connections }),
  };
}

/** In the original a pool size of 0 and an overflow of -1 mean "without a limit". */
function connectionsOf({ db_pool_size: size, db_pool_max_overflow: overflow }: Section): number | undefined {
  if (size == null && overflow == null) return undefined;
  if (size === 0 || overflow === -1) return CONNECTIONS_MAX;
  return Math.max(1, Math.min((size ?? POOL_SIZE) + (overflow ?? 0), CONNECTIONS_MAX));
}

/** A misspelt key here would connect elsewhere, or with less protection, than the file says. */
function refuseMisspelt(tree: MapTree, at: Place, known: readonly string[]): void {
  for (const [key, { line, value }] of tree.entries) {
    if (known.includes(key) || isOriginalKey([...at.key.split("."), key])) continue;
    if (key.startsWith("ssl") || nearestKey(key, known) !== undefined) {
      throw unknownKey({ ...at, key: `${at.key}.${visibleKey(key, !isEmpty(value), known)}`, line }, key, known);
    }
  }
}
