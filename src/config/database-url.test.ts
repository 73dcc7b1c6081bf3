import { Client } from "pg";
import { expect, test } from "vitest";
import { parseDatabaseUrl, shownDatabaseUrl } from "./database-url.ts";
import { maskSecrets, Secret } from "./secret.ts";

test.each([
  ["postgresql://u:p@db.example:5433/catalog", "postgresql://u@db.example:5433/catalog"],
  ["postgres://u:p@db/catalog?sslmode=require", "postgresql://u@db/catalog"],
  ["postgresql+pg8000://u:p%40%2F@db/catalog", "postgresql://u@db/catalog"],
  ["postgresql+psycopg2://db/catalog", "postgresql://db/catalog"],
  ["POSTGRESQL://[::1]:5432/c", "postgresql://[::1]:5432/c"],
  ["postgresql:///catalog?host=/run/postgresql&password=p", "postgresql:///run/postgresql/catalog"],
])("%s", (text, description) => {
  const parsed = parseDatabaseUrl(text);
  expect(parsed.description).toBe(description);
  expect(parsed.connectionString).toBe(text.replace(/^[^:]+:/, "postgresql:").replace("?sslmode=require", ""));
});

test.each([
  ["postgresql://u:p%2Fx@h:1/my db", ["u", "p/x", "h", 1, "my db"]],
  ["postgresql://u:p%2Fx@h/d?application_name=a b", ["u", "p/x", "h", 5432, "d"]],
  ["postgresql://u:p%2Fx@h/d?application_name=100%&sslmode=require", ["u", "p/x", "h", 5432, "d"]],
  ["postgresql://u:%25%2b@h/a+b", ["u", "%+", "h", 5432, "a+b"]],
  ["postgresql+pg8000://u%40x:p%3A@h/a%2Bb%3b%2F%26", ["u@x", "p:", "h", 5432, "a+b;/&"]],
  ["postgresql://u:p%C3%A9@h/%C3%A9t%C3%A9", ["u", "pé", "h", 5432, "été"]],
])("the driver understands %s as it is meant", (text, meant) => {
  const { user, password, host, port, database } = new Client(parseDatabaseUrl(text).connectionString);
  expect([user, password, host, port, database]).toEqual(meant);
});

test("options of the connection are taken out of the URL", () => {
  const { connectionString, options } = parseDatabaseUrl(
    "postgresql://h/d?sslmode=verify-full&application_name=a&sslrootcert=/r&connect_timeout=2.5&sslcert=/c&sslkey=/k",
  );
  expect(connectionString).toBe("postgresql://h/d?application_name=a");
  expect(options).toEqual({
    sslMode: "verify-full",
    sslRootCertificate: "/r",
    sslCertificate: "/c",
    sslKey: "/k",
    connectTimeoutMs: 2500,
  });
  expect(() => parseDatabaseUrl("postgresql://h/d?sslmode=verify")).toThrow(/sslmode must be one of/);
});

test.each([
  "mysql://u:geheim@h/d",
  "postgresql://u:12/geheim@h/d",
  "postgresql://u:12#geheim@h/d",
  "u:geheim@h/d",
  "postgresql:/u:geheim@h",
  "postgresql://u:ge%zzheim@h/d",
  "postgresql://u:geheim@%db/d",
  "postgresql://u%E2:%82%ACgeheim@h/d",
  "",
])("refuses %s without showing it", (text) => {
  const failure = (() => {
    try {
      return parseDatabaseUrl(text);
    } catch (error) {
      return error;
    }
  })();
  expect(failure).toMatchObject({ code: "CONFIG_INVALID" });
  expect(`${failure} ${JSON.stringify(failure)}`).not.toMatch(/geheim|zzheim/);
});

test.each([
  ["postgresql://u:p4ss@h:5432/d", "postgresql://u:********@h:5432/d"],
  ["postgresql+pg8000://u:p@[::1]/d?password=x", "postgresql+pg8000://u:********@[::1]/d?…"],
  ["postgresql://h/d", "postgresql://h/d"],
  ["postgresql://u@h/d", "postgresql://u@h/d"],
  ["postgresql://u:p4/ss@h/d", "********"],
  ["postgresql://u:12/p4ss@h/d", "********"],
  ["postgresql://u:p4#ss@h/d", "********"],
  ["postgresql://u:p4ss", "********"],
  ["u:p4ss@h", "********"],
])("%s is shown without its password", (text, shown) => {
  expect(shownDatabaseUrl(text)).toBe(shown);
});

test.each([
  "postgresql://u@open.example/d",
  "postgresql://open.example:5433/d",
  "postgresql+asyncpg://u@open.example/d",
])("%s holds no secret, and is not masked once it was used", (text) => {
  new Secret(text, parseDatabaseUrl(text).secrets).reveal();
  expect(maskSecrets(`can't reach ${text}`)).toBe(`can't reach ${text}`);
});

test.each([
  "postgresql://u:geheim@h/d",
  "postgresql+pg8000://h/d?password=geheim",
  "postgresql:///d?host=/s&sslkey=geheim",
])("%s is masked once it was used", (text) => {
  new Secret(text, parseDatabaseUrl(text).secrets).reveal();
  expect(maskSecrets(`can't reach ${text}`)).not.toContain("geheim");
});

test.each([
  ["ssl=verify-full", "verify-full"],
  ["ssl=disable", "disable"],
  ["ssl=true", "require"],
  ["ssl=0", undefined],
  ["sslmode=no-verify", "require"],
])("%s asks for %s", (option, mode) => {
  expect(parseDatabaseUrl(`postgresql+asyncpg://h/d?${option}`).options.sslMode).toBe(mode);
});
