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
  const endpoint = parseDatabaseUrl(text);
  expect(endpoint.description).toBe(description);
  expect(endpoint.client.connectionString).toBe(text.replace(/^[^:]+:/, "postgresql:"));
});

test.each(["mysql://u:geheim@h/d", "u:geheim@h/d", "postgresql:/u:geheim@h", "postgresql://u:ge%zzheim@h/d", ""])(
  "refuses %s without showing it",
  (text) => {
    const failure = (() => {
      try {
        return parseDatabaseUrl(text);
      } catch (error) {
        return error;
      }
    })();
    expect(failure).toMatchObject({ code: "CONFIG_INVALID" });
    expect(`${failure} ${JSON.stringify(failure)}`).not.toMatch(/geheim|zzheim/);
  },
);
