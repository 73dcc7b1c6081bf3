import {
  type Configuration,
  type ConfigurationValue,
  type DatabaseSettings,
  type SslMode,
  sslModes,
} from "./configuration.ts";
import { shownDatabaseUrl } from "./database-url.ts";
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

/**
 * `credentials.database`: a URL, or its parts.
 * @throws StowageError `CONFIG_INVALID`
 */
export function readDatabaseSection(
  entry: MapEntry,
  file: string,
): { readonly database: Configuration["database"]; readonly values: readonly ConfigurationValue[] } {
  const at: Place = { file, key: place, line: entry.line };
  const tree = mapOf(entry.value, at);
  refuseMisspelt(tree, at, knownKeys(databaseSection));
  const section = interpret(tree, databaseSection, at);
  const arguments_ = tree.entries.get("db_connect_args");
  const argumentsPlace = { ...at, key: `${place}.db_connect_args`, line: arguments_?.line ?? entry.line };
  if (arguments_ !== undefined && !isEmpty(arguments_.value)) {
    refuseMisspelt(mapOf(arguments_.value, argumentsPlace), argumentsPlace, knownKeys(databaseArguments));
  }
  const url = section.db_connect ?? urlOfParts(section, tree, at);
  if (url === undefined) return { database: undefined, values: [] };
  const values: ConfigurationValue[] = [];
  for (const [key, value] of Object.entries(section)) {
    const isOfUrl = ["user", "password", "host", "port", "name"].includes(key);
    if (key === "db_connect_args" || value === undefined || !isKnown(databaseSection, key)) continue;
    if (isOfUrl && section.db_connect) continue;
    values.push({
      key: `${place}.${key}`,
      value: shown(key, value),
      source: sourceOf(tree.entries.get(key), file),
    });
  }
  for (const [key, value] of Object.entries(section.db_connect_args ?? {})) {
    if (!isKnown(databaseArguments, key)) continue;
    const inner = arguments_?.value.kind === "map" ? arguments_.value.entries.get(key) : undefined;
    values.push({
      key: `${argumentsPlace.key}.${key}`,
      value: value as string | number | boolean | null,
      source: sourceOf(inner, file),
    });
  }
  return { database: { url: new Secret(url), settings: settingsOf(section) }, values };
}

function isKnown(schema: typeof databaseSection | typeof databaseArguments, key: string): boolean {
  return Object.hasOwn(schema.shape, key);
}

function shown(key: string, value: unknown): ConfigurationValue["value"] {
  if (key === "db_connect" && typeof value === "string") return shownDatabaseUrl(value);
  return key === "password" && value !== null ? new Secret(String(value)) : (value as string | number | null);
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
  return Math.max(1, Math.min((size ?? 30) + (overflow ?? 0), CONNECTIONS_MAX));
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
