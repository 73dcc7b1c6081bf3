import { expect, test } from "vitest";
import { parseDatabaseUrl } from "./url.ts";

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
