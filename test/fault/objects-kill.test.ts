import { spawn } from "node:child_process";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { isCode } from "../../src/errors/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { openObjectStore } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { startTestDatabase, type TestDatabase } from "../embedded-database.ts";
import { sectionsOf } from "../objects/sections.ts";
import { bodyOfVersion, ref, visibleAfter } from "./objects-history.ts";

const call = createCall();
const victim = join(import.meta.dirname, "objects-victim.ts");

/** What an undisturbed victim announces, so that a step that is added, or lost, is noticed. */
const put = ["objects intended", "victim halfway", "objects stored", "objects proven", "objects published"];
/** The same of what goes in one statement. */
const putAtOnce = ["victim halfway", "objects proven", "objects published"];
const acknowledged = "victim acknowledged";
const reap = ["objects deleting", "objects deleted", "objects forgotten"];
const steps = [
  ...[...put, acknowledged],
  ...[...put, acknowledged],
  ...[...reap, acknowledged],
  ...[...put, acknowledged],
  ...["objects retired", acknowledged],
  // Version 2, which version 3 has replaced, and version 3.
  ...[...reap, acknowledged],
  ...[...reap, acknowledged],
  ...[...put, acknowledged],
  ...[...putAtOnce, acknowledged],
];

let opened: TestDatabase;
beforeAll(async () => {
  opened = await startTestDatabase();
});
beforeEach(() => opened.clear());
afterAll(() => opened?.[Symbol.asyncDispose]());

describe("a store whose process is killed", () => {
  test("not at all", async () => {
    const { lines, signal } = await runVictim(undefined);
    expect(signal).toBe(null);
    expect(lines.filter((line) => line.startsWith("step ")).map((line) => line.slice(5))).toEqual(steps);
    await expectOrder(lines);
  });

  test.each(steps.map((name, index) => ({ step: index + 1, name })))("at step $step, $name", async ({ step, name }) => {
    const { lines, signal } = await runVictim(step);
    expect(signal).toBe("SIGKILL");
    expect(lines.at(-1)).toBe(`step ${name}`);
    await expectOrder(lines);
  });
});

/** Old or new, whole, with nothing lost and nothing that the reaper does not find. */
async function expectOrder(lines: readonly string[]): Promise<void> {
  const { database } = opened;
  const driver = new DatabaseDriver(database);
  const store = await openObjectStore({
    database,
    sections: sectionsOf(driver),
    retireGraceSeconds: 0,
    lateSeconds: 0,
  });
  const done = lines.filter((line) => line.startsWith("done ")).length;
  // What was acknowledged last, or what the operation under way would have made of it.
  const before = visibleAfter[done - 1]?.[1] ?? 0;
  const after = visibleAfter[done]?.[1] ?? before;

  expect(await violations()).toEqual([]);
  const left = await visibleVersion(store);
  expect([before, after]).toContain(left);

  await sql`update locations set lease_until = now() - interval '1 second' where state = 'pending'`.execute(
    database.sql,
  );
  while ((await store.reap(2, call)).isMoreLeft) {
    // until nothing is left to do
  }
  expect(await violations()).toEqual([]);
  expect(await visibleVersion(store)).toBe(left);
  const blobs = await database.sql.selectFrom("object_blobs").select("physical_key").execute();
  const chunks = await database.sql.selectFrom("object_chunks").select("physical_key").distinct().execute();
  const locations = await database.sql.selectFrom("locations").select(["physical_key", "state"]).execute();
  expect(locations.map(({ state }) => state)).toEqual(left === 0 ? [] : ["live"]);
  const keys = locations.map(({ physical_key }) => ({ physical_key }));
  expect([blobs, chunks]).toEqual([keys, keys]);

  async function visibleVersion(from: typeof store): Promise<number> {
    try {
      const bytes = await buffer((await from.get(ref, call)).body);
      const version = Number(/^version (\d)/.exec(bytes.subarray(0, 10).toString())?.[1]);
      expect(bytes.equals(bodyOfVersion(version))).toBe(true);
      return version;
    } catch (error) {
      if (isCode(error, "OBJECT_NOT_FOUND")) return 0;
      throw error;
    }
  }

  /** What must never be, not even for a moment. */
  async function violations(): Promise<string[]> {
    const { rows } = await sql<{ what: string }>`
      select 'a pointer to a location that is not live' as what
        from objects o join locations l on l.id = o.location_id where l.state <> 'live'
      union all select 'a live location without a pointer'
        from locations l where l.state = 'live' and not exists (select 1 from objects o where o.location_id = l.id)
      union all select 'bytes without a location'
        from object_chunks c where not exists (select 1 from locations l where l.physical_key = c.physical_key)
      union all select 'a blob without a location'
        from object_blobs b where not exists (select 1 from locations l where l.physical_key = b.physical_key)`.execute(
      database.sql,
    );
    return rows.map(({ what }) => what);
  }
}

async function runVictim(killAt: number | undefined): Promise<{ lines: string[]; signal: NodeJS.Signals | null }> {
  const child = spawn(process.execPath, [victim, opened.dataDirectory, String(killAt ?? "never")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const output = buffer(child.stdout);
  const signal = await new Promise<NodeJS.Signals | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (_code, by) => resolve(by));
  });
  return { lines: (await output).toString("utf8").trimEnd().split("\n"), signal };
}
