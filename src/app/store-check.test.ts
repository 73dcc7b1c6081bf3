import { join } from "node:path";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { defaultConfiguration } from "../config/index.ts";
import type { CheckStep } from "../objects/index.ts";
import { createCall } from "../runtime/index.ts";
import { openStoreCheck } from "./store-check.ts";

const call = createCall();
let opened: TestDatabase;

beforeAll(async () => {
  opened = await startTestDatabase();
  await sql`create role limited login`.execute(opened.database.sql);
  await sql`grant select on all tables in schema public to limited`.execute(opened.database.sql);
  await sql`create database untouched`.execute(opened.database.sql);
});
afterAll(() => opened?.[Symbol.asyncDispose]());

/** The steps of a check by a user who has few rights, in a database of the embedded server. */
async function check(database: string): Promise<readonly CheckStep[]> {
  const url = `postgresql:///${database}?host=${encodeURIComponent(join(opened.dataDirectory, "postgres"))}&user=limited`;
  const location = { kind: "server", url } as const;
  await using checks = await openStoreCheck({ configuration: defaultConfiguration, database: location }, call);
  const steps: CheckStep[] = [];
  for (const backend of checks.backends) for await (const step of backend.run(call)) steps.push(step);
  return steps;
}

test("who may not make the schema is told so in a list of steps, with the right that is missing", async () => {
  const [first, ...others] = await check("untouched");
  expect(first).toMatchObject({
    name: "open the database",
    outcome: "failed",
    error: {
      code: "DB_DENIED",
      details: { permission: "CREATE", resource: "schema public" },
      hint: "as the owner, run: GRANT CREATE ON SCHEMA public TO limited",
    },
  });
  expect(others.map(({ name }) => name)).toEqual(expect.arrayContaining(["connect", "write", "delete"]));
  expect(new Set(others.map(({ outcome }) => outcome))).toEqual(new Set(["skipped"]));
});

test("who may only read is told what may not be written", async () => {
  const steps = await check("postgres");
  expect(steps.find(({ name }) => name === "connect")).toMatchObject({ outcome: "ok" });
  expect(steps.find(({ name }) => name === "write")).toMatchObject({
    outcome: "failed",
    error: {
      code: "DB_DENIED",
      details: { permission: "INSERT", resource: expect.stringMatching(/^table object_(chunks|blobs)$/) },
      hint: expect.stringMatching(/^as the owner, run: GRANT INSERT ON object_\w+ TO limited/),
    },
  });
});

test("who has all rights can do it all", async () => {
  await sql`grant insert, update, delete on all tables in schema public to limited`.execute(opened.database.sql);
  expect((await check("postgres")).map(({ outcome }) => outcome)).not.toContain("failed");
});
