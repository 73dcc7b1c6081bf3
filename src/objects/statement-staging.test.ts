import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { sectionsOf } from "../../test/objects/sections.ts";
import { createCall, onStep } from "../runtime/index.ts";
import type { WholeBlob } from "./driver.ts";
import { DatabaseDriver, databaseOpener } from "./drivers/db/index.ts";
import { openLocalFiles } from "./drivers/localfs/local-files-driver.ts";
import { guard, type ObjectBody, type ObjectDriver, type ObjectRef, openObjectStore } from "./index.ts";
import { setRedirects } from "./rows/copies.ts";

const call = createCall();
const refOf = (key: string): ObjectRef => ({ account: "a", bucket: "b", key });

let opened: TestDatabase;
beforeAll(async () => {
  opened = await startTestDatabase();
});
afterEach(async () => {
  // Nothing that a row does not speak of, and nothing that a row speaks of in vain.
  expect(await keysOf("object_blobs")).toEqual(await keysOf("locations"));
  expect(await keysOf("object_chunks")).toEqual(await keysOf("locations"));
  await opened.clear();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

test("short documents under way together are stored whole, each with its row and its proof", async () => {
  const store = await open();
  const sizes = [0, 1, 1000, 100_000, 200_000, 261_000, ...Array.from({ length: 30 }, (_, at) => 3000 + at)];
  const stepsOf = stepsSince();
  const staged = await Promise.all(sizes.map((size, at) => store.stage(refOf(String(at)), bodyOf(size, at), call)));
  expect(new Set(stepsOf())).toEqual(new Set(["objects proven"]));
  const rows = await opened.database.sql
    .selectFrom("locations")
    .select(["state", "proven_at", "lease_until"])
    .execute();
  expect(rows).toHaveLength(sizes.length);
  expect(rows.every((row) => row.state === "pending" && row.proven_at !== null && row.lease_until !== null)).toBe(true);
  await opened.database.transaction((tx) => store.publish(tx, staged), call);
  for (const [at, size] of sizes.entries()) expect((await read(store, at)).equals(contentOf(size, at))).toBe(true);
});

test("what is longer than a chunk, or does not say how long it is, goes in steps", async () => {
  const store = await open();
  for (const body of [bodyOf(262_000, 1), { open: bodyOf(10, 2).open }]) {
    const stepsOf = stepsSince();
    const staged = await store.stage(refOf("k"), body, call);
    expect(stepsOf()).toEqual(["objects intended", "objects stored", "objects proven"]);
    await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
  }
});

test("bytes of the caller's are left as they are", async () => {
  const store = await open();
  const bytes = contentOf(5000, 3);
  await store.stage(refOf("k"), { open: async () => Readable.from([bytes]), bytes, sizeBytes: bytes.length }, call);
  await store.stage(refOf("l"), { open: async () => Readable.from([bytes]), sizeBytes: bytes.length }, call);
  expect(bytes.equals(contentOf(5000, 3))).toBe(true);
});

test("a body that fails, or has another length than it says, leaves nothing", async () => {
  const store = await open();
  const failing = async function* () {
    yield Buffer.alloc(10);
    throw new RangeError("the body's own reason");
  };
  const failed = store.stage(refOf("k"), { open: async () => Readable.from(failing()), sizeBytes: 20 }, call);
  await expect(failed).rejects.toThrow("the body's own reason");
  expect(await keysOf("locations")).toEqual([]);
  for (const sizeBytes of [9, 11]) {
    const { open: ten } = bodyOf(10, 1);
    const failure = await failureOf(store.stage(refOf("k"), { open: ten, sizeBytes }, call));
    expect(failure.code).toBe("BACKEND_FAILED");
  }
  await opened.database.sql.deleteFrom("locations").execute();
});

test("nobody fails with another whose object can't be stored", async () => {
  const store = await open();
  const refs = [refOf("one"), refOf("with\0nul"), refOf("two"), refOf("three")];
  const outcomes = await Promise.allSettled(refs.map((ref, at) => store.stage(ref, bodyOf(100, at), call)));
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
});

test("what arrives damaged is not stored, and is sent again", async () => {
  const inner = new DatabaseDriver(opened.database);
  const damaged = (blob: WholeBlob) => ({ ...blob, bytes: Buffer.from(blob.bytes).fill(1, 300, 301) });
  const { statementPuts } = inner;
  const driver = Object.assign(Object.create(inner) as ObjectDriver, {
    put: inner.put.bind(inner),
    get: inner.get.bind(inner),
    capabilities: inner.capabilities.bind(inner),
    statementPuts: {
      ...statementPuts,
      expressions: (blobs: readonly WholeBlob[]) => statementPuts.expressions(blobs.map(damaged)),
    },
  });
  const store = await openObjectStore({ database: opened.database, sections: sectionsOf(driver) });
  const stepsOf = stepsSince();
  const staged = await store.stage(refOf("0"), bodyOf(1000, 7), call);
  expect(stepsOf()).toEqual(["objects intended", "objects stored", "objects proven"]);
  await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
  expect((await read(store, 0)).equals(contentOf(1000, 7))).toBe(true);
});

test("what an online migration sends elsewhere goes there", async () => {
  await using files = await temporaryFiles();
  const store = await open(files.section);
  await store.stage(refOf("before"), bodyOf(100, 1), call);
  await redirect("*");
  const staged = await store.stage(refOf("0"), bodyOf(100, 2), call);
  await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
  expect((await read(store, 0)).equals(contentOf(100, 2))).toBe(true);
  // Nothing is sent here in vain any more, until the order is taken back.
  const stepsOf = stepsSince();
  for (const key of ["1", "2", "3"]) {
    if (key === "2") await opened.database.sql.deleteFrom("write_redirects").execute();
    await store.stage(refOf(key), bodyOf(100, 3), call);
  }
  const inSteps = ["objects intended", "objects stored", "objects proven"];
  expect(stepsOf()).toEqual([...inSteps, ...inSteps, "objects proven"]);
  const there = await opened.database.sql
    .selectFrom("locations")
    .innerJoin("backends", "backends.id", "backend_id")
    .select(["object_key", "driver"])
    .orderBy("object_key")
    .execute();
  expect(there).toEqual([
    { object_key: "0", driver: "localfs" },
    { object_key: "1", driver: "localfs" },
    { object_key: "2", driver: "db" },
    { object_key: "3", driver: "db" },
    { object_key: "before", driver: "db" },
  ]);
  await opened.database.sql.deleteFrom("objects").execute();
  await opened.database.sql.deleteFrom("locations").where("object_key", "in", ["0", "1"]).execute();
});

test("an order to send it elsewhere waits for a writer whose statement has looked before it", async () => {
  await using files = await temporaryFiles();
  const store = await open(files.section);
  await store.stage(refOf("before"), bodyOf(100, 1), call);
  await sql`create function wait_for_test() returns trigger language plpgsql as $$
    begin perform pg_advisory_xact_lock(4711); return new; end $$`.execute(opened.database.sql);
  await sql`create trigger wait_for_test before insert on object_blobs for each row execute function wait_for_test()`.execute(
    opened.database.sql,
  );
  let [staging, redirecting]: Promise<unknown>[] = [];
  await opened.database.transaction(async (tx) => {
    await sql`select pg_advisory_xact_lock(4711)`.execute(tx.sql);
    staging = store.stage(refOf("late"), bodyOf(100, 2), call);
    await untilWaiting("advisory");
    redirecting = redirect("*");
    await untilWaiting("relation");
  }, call);
  await redirecting;
  const pending = await opened.database.sql.selectFrom("locations").select("object_key").orderBy("id").execute();
  expect(pending.map((row) => row.object_key)).toEqual(["before", "late"]);
  await staging;
  await sql`drop function wait_for_test cascade`.execute(opened.database.sql);
});

async function untilWaiting(locktype: string): Promise<void> {
  for (;;) {
    const { rows } = await sql`select from pg_locks where not granted and locktype = ${locktype}`.execute(
      opened.database.sql,
    );
    if (rows.length > 0) return;
  }
}

function open(other?: Parameters<typeof openObjectStore>[0]["sections"]["workingSet"]) {
  const workingSet = { opener: databaseOpener, config: {} };
  const sections = other === undefined ? { workingSet } : { workingSet, others: [other] };
  return openObjectStore({ database: opened.database, sections, guard });
}

async function temporaryFiles() {
  const root = await mkdtemp(join(tmpdir(), "stowage-test-"));
  const opener = {
    name: "localfs",
    settingsOf: () => ({ archive_data_dir: root }),
    open: (_config: unknown, _surroundings: unknown, under: typeof call) =>
      openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, under),
  };
  return { section: { opener, config: {} }, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

async function redirect(bucket: string): Promise<void> {
  const backends = await opened.database.sql.selectFrom("backends").select(["id", "driver"]).execute();
  const idOf = (name: string) => backends.find(({ driver }) => driver === name)?.id ?? 0;
  await opened.database.transaction(async (tx) => {
    const { id } = await tx.sql
      .insertInto("migrations")
      .values({ state: "running", source: "{}", destination: "{}", options: "{}", executor: "test" })
      .returning("id")
      .executeTakeFirstOrThrow();
    await setRedirects(tx, id, [{ backendId: idOf("db"), bucket, toBackendId: idOf("localfs") }]);
  }, call);
}

function contentOf(size: number, seed: number): Buffer {
  return Buffer.alloc(size, `content ${seed} `);
}

/** In pieces, as bodies come. */
function bodyOf(size: number, seed: number): ObjectBody {
  const bytes = contentOf(size, seed);
  const half = size >> 1;
  const pieces = [bytes.subarray(0, half), bytes.subarray(half)].filter(({ length }) => length > 0);
  return { open: async () => Readable.from(pieces), sizeBytes: size };
}

async function read(store: Awaited<ReturnType<typeof open>>, at: number): Promise<Buffer> {
  return await buffer((await store.get(refOf(String(at)), call)).body);
}

/** Steps of staging that are announced from now on, until they are asked for. */
function stepsSince(): () => readonly string[] {
  const steps: string[] = [];
  const stop = onStep(({ name }) => {
    if (/^objects (intended|stored|proven)$/.test(name)) steps.push(name);
  });
  return () => {
    stop();
    return steps;
  };
}

async function keysOf(table: "object_blobs" | "object_chunks" | "locations"): Promise<readonly string[]> {
  const rows = await opened.database.sql.selectFrom(table).select("physical_key").distinct().execute();
  return rows.map((row) => row.physical_key).toSorted();
}
