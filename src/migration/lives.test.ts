import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { MemoryDriver } from "../../test/fault/memory-driver.ts";
import type { Database } from "../db/index.ts";
import { type BackendSection, type ObjectRef, openObjectStore } from "../objects/index.ts";
import { createCall, systemClock } from "../runtime/index.ts";
import { type MigrationOrder, type MigrationPace, Migrations } from "./index.ts";
import { beginLife } from "./rows.ts";

// What the simulation in test/migration found, each alone.

const call = createCall();
const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };
const pace: MigrationPace = {
  concurrency: 1,
  executor: "test",
  clock: { ...systemClock, sleep: async () => {} },
  passesMax: 2,
  watch: () => {},
};
let opened: TestDatabase;

beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());
afterEach(() => opened.clear());

function memory(place: string): BackendSection {
  const driver = new MemoryDriver();
  return { opener: { name: "memory", settingsOf: () => ({ place }), open: async () => driver }, config: {} };
}

/** Two places, an object at the first of them, and how it is moved to the second. */
async function ground() {
  const [from, to] = [memory("from"), memory("to")];
  const options = { database: opened.database, retireGraceSeconds: 0, lateSeconds: 0 };
  const store = await openObjectStore({ ...options, sections: { workingSet: to, others: [from] } });
  const service = await openObjectStore({ ...options, sections: { workingSet: from, others: [to] } });
  const body = { open: async () => Readable.from([Buffer.from("bytes")]) };
  const staged = await service.stage(ref, body, call);
  await opened.database.transaction((tx) => service.publish(tx, [staged]), call);
  const [source, destination] = [await store.copies.backendOf(from, call), await store.copies.backendOf(to, call)];
  const order: MigrationOrder = {
    selection: { sourceBackendId: source, destinationBackendId: destination, archiveBackendId: destination },
    source: { driver: "memory", place: "from" },
    destination: { driver: "memory", place: "to" },
    keepsSources: false,
    verify: "readback",
    isOnline: false,
    files: ["a.yaml", "b.yaml"],
  };
  const placeOf = async () => {
    const { locationId } = (await store.find(ref, call)) ?? { locationId: 0 };
    const row = await opened.database.sql
      .selectFrom("locations")
      .select("backend_id")
      .where("id", "=", locationId)
      .executeTakeFirst();
    return row?.backend_id === destination ? "to" : "from";
  };
  return { store, service, body, order, placeOf };
}

test("a process that was taken for dead writes nothing down once another has gone on", async () => {
  const { store, order, placeOf } = await ground();
  const id = await new Migrations(opened.database, store).plan(order, "test", call);
  let transactions = 0;
  const slow: Database = {
    ...opened.database,
    async transaction(work, under) {
      // After its copy was intended: it stood still meanwhile.
      if (++transactions === 2) await beginLife(opened.database, id, "another");
      return await opened.database.transaction(work, under);
    },
  };
  expect((await failureOf(new Migrations(slow, store).run(id, pace, call))).code).toBe("DB_LOCK_LOST");
  const status = await new Migrations(opened.database, store).get(id);
  expect(status).toMatchObject({ state: "running", executor: "another", counts: { planned: { objects: 1 } } });
  expect((await new Migrations(opened.database, store).run(id, pace, call)).state).toBe("complete");
  expect(await placeOf()).toBe("to");
});

test("a cancel that is interrupted has done nothing", async () => {
  const { store, order, placeOf } = await ground();
  const migrations = new Migrations(opened.database, store);
  const id = await migrations.plan(order, "test", call);
  const abort = new AbortController();
  const failing: Database = {
    ...opened.database,
    transaction: (work, under) =>
      opened.database.transaction(async (tx) => {
        const result = await work(tx);
        abort.abort();
        return result;
      }, under),
  };
  const interrupted = new Migrations(failing, store).cancel(id, createCall({ signal: abort.signal }));
  expect((await failureOf(interrupted)).code).toBe("INPUT_INTERRUPTED");
  expect((await migrations.get(id)).counts.planned.objects).toBe(1);
  expect((await migrations.run(id, pace, call)).state).toBe("complete");
  expect(await placeOf()).toBe("to");
});

test("what was mended at the source between two lives is moved before the migration is complete", async () => {
  const { store, service, body, order, placeOf } = await ground();
  const migrations = new Migrations(opened.database, store);
  const id = await migrations.plan(order, "test", call);
  const version = await service.find(ref, call);
  const copy = await service.stage(ref, body, call);
  if (version === undefined) throw new Error("it was just written");
  expect(await opened.database.transaction((tx) => service.relocate(tx, version, copy), call)).toBe(true);
  const status = await migrations.run(id, pace, call);
  expect(status).toMatchObject({ state: "complete", counts: { superseded: { objects: 1 }, done: { objects: 1 } } });
  expect(await placeOf()).toBe("to");
});

test("an online migration that is refused is not complete, though nothing was planned", async () => {
  const { store, service, order } = await ground();
  await opened.database.transaction((tx) => service.retire(tx, ref), call);
  const migrations = new Migrations(opened.database, store);
  const id = await migrations.plan({ ...order, isOnline: true }, "test", call);
  const refused = migrations.run(id, { ...pace, unready: async () => ["another"] }, call);
  expect((await failureOf(refused)).code).toBe("MIGRATION_STORE_IN_USE");
  expect((await migrations.get(id)).state).toBe("incomplete");
});

test("what others write while a process stands still before its end, having lost the store, is seen", async () => {
  const { store, service, body, order, placeOf } = await ground();
  const put = async () => {
    const staged = await service.stage(ref, body, call);
    await opened.database.transaction((tx) => service.publish(tx, [staged]), call);
  };
  const before = (work: (transaction: number) => Promise<void>): Database => {
    let transactions = 0;
    return {
      ...opened.database,
      async transaction(inside, under) {
        await work(++transactions);
        return await opened.database.transaction(inside, under);
      },
    };
  };
  const migrations = new Migrations(opened.database, store);
  let last = 0;
  const counting = before(async (transaction) => {
    last = transaction;
  });
  await new Migrations(counting, store).run(await migrations.plan(order, "test", call), pace, call);
  await put();
  const id = await migrations.plan(order, "test", call);
  const standing = before(async (transaction) => (transaction === last ? await put() : undefined));
  expect((await new Migrations(standing, store).run(id, pace, call)).state).toBe("incomplete");
  expect(await placeOf()).toBe("from");
  expect((await migrations.run(id, pace, call)).state).toBe("complete");
  expect(await placeOf()).toBe("to");
});
