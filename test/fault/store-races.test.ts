import { afterAll, beforeAll, describe, test } from "vitest";
import { startTestDatabase, type TestDatabase } from "../embedded-database.ts";
import { Arena } from "../storm/arena.ts";
import { races, runRace } from "../storm/races.ts";

let opened: TestDatabase;
beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

describe.each(["files", "database"] as const)("steps that race over a location, in %s", (backend) => {
  test.each(Object.keys(races))("%s", async (name) => {
    await using arena = await Arena.open(backend, opened);
    await runRace(name, arena);
  });
});
