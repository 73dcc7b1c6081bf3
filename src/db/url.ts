import { StowageError } from "../errors/index.ts";
import type { Endpoint } from "./endpoint.ts";

/**
 * The user's own PostgreSQL from its URL. `postgresql://` and `postgres://` are taken, and the spellings that name a Python driver
 * (`postgresql+pg8000://`, `postgresql+psycopg2://`) as they stand in existing configurations.
 * @throws StowageError `CONFIG_INVALID`; the URL itself is never shown, since it may hold a password
 */
export function parseDatabaseUrl(text: string): Endpoint {
  const match = /^(postgres(?:ql)?)(\+[a-z0-9_]+)?:\/\//i.exec(text);
  if (match === null) throw invalid("it must begin with postgresql://");
  const connectionString = `postgresql://${text.slice(match[0].length)}`;
  let url: URL;
  try {
    url = new URL(connectionString);
    decodeURIComponent(url.username + url.password);
  } catch {
    throw invalid("it is not a valid URL (special characters in user or password must be percent-encoded)");
  }
  return { client: { connectionString, keepAlive: true }, description: describe(url) };
}

/** `postgresql://user@host:port/database`: neither password nor options, which may name one. */
function describe(url: URL): string {
  const user = url.username === "" ? "" : `${url.username}@`;
  const host = url.host || url.searchParams.get("host") || "";
  return `postgresql://${user}${host}${url.pathname}`;
}

function invalid(reason: string): StowageError {
  return new StowageError(
    "CONFIG_INVALID",
    { key: "db-connect", reason: `the database URL is not usable: ${reason}` },
    { hint: "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE" },
  );
}
