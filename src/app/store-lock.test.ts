import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { createCall } from "../runtime/index.ts";
import { shareStore, storeHolders, takeStore } from "./store-lock.ts";

const call = createCall();
let opened: TestDatabase;
beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

/** Ends the connections that hold advisory locks, as a restart of the server does. */
async function cutOff(): Promise<void> {
  await sql`select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted`.execute(
    opened.database.sql,
  );
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}

const waiters = async () => {
  const { rows } = await sql<{ n: number }>`
    select count(*) as n from pg_locks where locktype = 'advisory' and not granted`.execute(opened.database.sql);
  return rows[0]?.n ?? 0;
};

describe("the store", () => {
  test("is shared by many, and taken by one who is alone", async () => {
    const { database } = opened;
    {
      await using _one = await shareStore(database, call);
      await using _other = await shareStore(database, call);
      expect(await storeHolders(database)).toHaveLength(2);
      expect(await failureOf(takeStore(database, call))).toMatchObject({
        code: "MIGRATION_STORE_IN_USE",
        details: { processes: ["stowage", "stowage"] },
      });
    }
    await using _taken = await takeStore(database, call);
    expect(await failureOf(shareStore(database, call))).toMatchObject({
      code: "MIGRATION_RUNNING",
      details: { reason: "by stowage" },
    });
  });

  test("a share that was cut off is had again", async () => {
    const { database } = opened;
    {
      await using share = await shareStore(database, call);
      for (let restart = 0; restart < 3; restart++) {
        await cutOff();
        await until(async () => (await storeHolders(database)).length === 1);
      }
      expect(share.signal.aborted).toBe(false);
    }
    expect(await storeHolders(database)).toEqual([]);
  });

  test("whoever loses it to another is told", async () => {
    const { database } = opened;
    await using share = await shareStore(database, call);
    const lost = new Promise((resolve) => share.signal.addEventListener("abort", resolve, { once: true }));
    const taking = database.lock("object store", "exclusive", 60_000, call);
    await until(async () => (await waiters()) === 1);
    await cutOff();
    await using _taken = await taking;
    await lost;
    expect(share.signal.reason).toMatchObject({ code: "MIGRATION_RUNNING" });
  });
});
