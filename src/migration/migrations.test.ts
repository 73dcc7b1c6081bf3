import { mkdtemp, readdir, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { type Compression, defaultCompression } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { databaseOpener } from "../objects/drivers/db/index.ts";
import { localfsDriver } from "../objects/drivers/localfs/index.ts";
import { type BackendSection, type DriverOpener, type ObjectRef, openObjectStore } from "../objects/index.ts";
import { createCall, onStep, systemClock } from "../runtime/index.ts";
import {
  type MigrationOrder,
  type MigrationPace,
  type MigrationSnapshot,
  Migrations,
  type SelectionFlags,
  type StoreBackends,
  selectionOf,
} from "./index.ts";

const call = createCall();
let opened: TestDatabase;
let directory: string;

beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-migration-"));
});
afterEach(async () => {
  await opened.clear();
  await rm(directory, { recursive: true, force: true });
});

const database: BackendSection = { opener: databaseOpener, config: {} };

function files(name: string, compression: Partial<Compression> = {}): BackendSection {
  const config = localfsDriver.schema.parse({ archive_data_dir: join(directory, name) });
  return { opener: localfsDriver as DriverOpener, config, compression: { ...defaultCompression, ...compression } };
}

/** A place where something happens before each put. */
function slowly(place: BackendSection, before: () => void): BackendSection {
  const opener: DriverOpener = {
    ...place.opener,
    async open(config, surroundings, under) {
      const driver = await place.opener.open(config, surroundings, under);
      const put = driver.put.bind(driver);
      driver.put = async (...parts) => {
        before();
        return await put(...parts);
      };
      return driver;
    },
  };
  return { ...place, opener };
}

interface Stores {
  readonly workingSet: BackendSection;
  readonly archive?: BackendSection;
}

const noFlags: SelectionFlags = { fromAnalysisArchive: false, toAnalysisArchive: false, buckets: [] };

/** A store that can reach what both configurations name, and the migrations on it. */
async function open(source: Stores, destination: Stores) {
  const others = [source.workingSet, ...(source.archive === undefined ? [] : [source.archive]), database];
  const sections = { ...destination, others };
  const store = await openObjectStore({ database: opened.database, sections, retireGraceSeconds: 0, lateSeconds: 0 });
  const backends = async (stores: Stores): Promise<StoreBackends> => {
    const workingSet = await store.copies.backendOf(stores.workingSet, call);
    const archive = stores.archive === undefined ? workingSet : await store.copies.backendOf(stores.archive, call);
    return { workingSet, archive };
  };
  const migrations = new Migrations(opened.database, store);
  const order = async (
    flags: Partial<SelectionFlags> = {},
    more: Partial<MigrationOrder> = {},
  ): Promise<MigrationOrder> => ({
    selection: selectionOf({ ...noFlags, ...flags }, await backends(source), await backends(destination)),
    source: { driver: "a", place: "here" },
    destination: { driver: "b", place: "there" },
    keepsSources: false,
    verify: "readback",
    isOnline: false,
    files: ["a.yaml", "b.yaml"],
    ...more,
  });
  return { store, migrations, order, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() };
}

const pace: MigrationPace = {
  concurrency: 8,
  executor: "test",
  clock: { ...systemClock, sleep: async () => {} },
  passesMax: 3,
  watch: () => {},
};

async function fill(stores: Stores, count: number, bucket = "b"): Promise<void> {
  await using store = await openObjectStore({ database: opened.database, sections: stores });
  for (let index = 0; index < count; index++) {
    const bytes = contentOf(bucket, index);
    const body = { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
    const staged = await store.stage(refOf(bucket, index), body, call);
    await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
  }
}

function refOf(bucket: string, index: number): ObjectRef {
  return { account: "a", bucket, key: String(index) };
}

function contentOf(bucket: string, index: number): Buffer {
  return Buffer.alloc(500 + index * 40, `${bucket} ${index} `);
}

async function expectAllReadable(store: Awaited<ReturnType<typeof openObjectStore>>, count: number, bucket = "b") {
  for (let index = 0; index < count; index++) {
    const read = await buffer((await store.get(refOf(bucket, index), call)).body);
    expect(read.equals(contentOf(bucket, index))).toBe(true);
  }
}

/** Files of blobs, without markers. */
async function blobsOf(name: string): Promise<string[]> {
  const found = await readdir(join(directory, name), { recursive: true, withFileTypes: true }).catch(() => []);
  return found
    .filter((each) => each.isFile() && !each.name.startsWith("0".repeat(24)))
    .map((each) => join(each.parentPath, each.name))
    .toSorted();
}

async function blobsInDatabase(): Promise<number> {
  const { rows } = await sql<{ n: number }>`select count(*) as n from object_blobs`.execute(opened.database.sql);
  return rows[0]?.n ?? 0;
}

describe("a migration", () => {
  test.each([
    ["database to files", () => database, () => files("one")],
    ["files to database", () => files("one"), () => database],
    ["files to files", () => files("one"), () => files("two")],
    ["into compressed files", () => database, () => files("two", { enabled: true, minSizeKbytes: 1 })],
    [
      "out of compressed files",
      () => files("one", { enabled: true, minSizeKbytes: 1, algorithm: "gzip" }),
      () => files("two"),
    ],
  ])("moves every object, reads it back and empties the source: %s", async (_, from, to) => {
    const [source, destination] = [{ workingSet: from() }, { workingSet: to() }];
    await fill(source, 150);
    await using both = await open(source, destination);
    const id = await both.migrations.plan(await both.order(), "test", call);
    const status = await both.migrations.run(id, pace, call);
    expect(status).toMatchObject({
      state: "complete",
      objects: 150,
      counts: { done: { objects: 150 }, failed: { objects: 0 } },
    });
    await expectAllReadable(both.store, 150);
    const { backends } = await both.store.usage(true, call);
    const held = backends.map(({ held: each }) => each?.blobs ?? 0).filter((blobs) => blobs > 0);
    expect(held).toEqual([150]);
    expect(
      (await opened.database.sql.selectFrom("locations").select("state").execute()).every(
        ({ state }) => state === "live",
      ),
    ).toBe(true);
  });

  test("the version of an object stays, whatever its place", async () => {
    await fill({ workingSet: database }, 2);
    await fill({ workingSet: database }, 2);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    await both.migrations.run(await both.migrations.plan(await both.order(), "test", call), pace, call);
    expect(await both.store.find(refOf("b", 0), call)).toMatchObject({ version: 2 });
  });

  test("payloads of the same codec are passed on as they are", async () => {
    const zstd = { enabled: true, minSizeKbytes: 0 };
    await fill({ workingSet: files("one", zstd) }, 5);
    const before = await opened.database.sql
      .selectFrom("locations")
      .select(["object_key", "stored_bytes", "stored_digest"])
      .execute();
    await using both = await open({ workingSet: files("one", zstd) }, { workingSet: files("two", zstd) });
    await both.migrations.run(await both.migrations.plan(await both.order(), "test", call), pace, call);
    const after = await opened.database.sql
      .selectFrom("locations")
      .select(["object_key", "stored_bytes", "stored_digest", "codec"])
      .execute();
    expect(after.map(({ codec }) => codec)).toEqual(Array(5).fill("zstd"));
    // Only the header, which names the place, is another.
    for (const row of after) {
      const old = before.find(({ object_key }) => object_key === row.object_key);
      expect(Math.abs((row.stored_bytes ?? 0) - (old?.stored_bytes ?? 0))).toBeLessThan(5);
      expect(row.stored_digest).not.toBe(old?.stored_digest);
    }
    await expectAllReadable(both.store, 5);
  });

  test("keeps the sources when that is asked for", async () => {
    await fill({ workingSet: files("one") }, 10);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const status = await both.migrations.run(
      await both.migrations.plan(await both.order({}, { keepsSources: true }), "test", call),
      pace,
      call,
    );
    expect(status).toMatchObject({ state: "complete", counts: { done: { objects: 10 } } });
    expect(await blobsOf("one")).toHaveLength(10);
    expect((await both.store.reap(1000, call)).blobsDeleted).toBe(0);
    await expectAllReadable(both.store, 10);
    // Of what is overwritten or deleted nothing is kept: nobody could find it again.
    await fill({ workingSet: database }, 1);
    await opened.database.transaction((tx) => both.store.retire(tx, refOf("b", 1)), call);
    expect((await both.store.reap(1000, call)).blobsDeleted).toBe(4);
    expect(await blobsOf("one")).toHaveLength(8);
  });

  test("back again is a migration with the sides swapped", async () => {
    const [one, two] = [{ workingSet: files("one") }, { workingSet: database }];
    await fill(one, 10);
    await using there = await open(one, two);
    await there.migrations.run(await there.migrations.plan(await there.order(), "test", call), pace, call);
    await using back = await open(two, one);
    await back.migrations.run(await back.migrations.plan(await back.order(), "test", call), pace, call);
    expect([(await blobsOf("one")).length, await blobsInDatabase()]).toEqual([10, 0]);
    await expectAllReadable(back.store, 10);
  });
});

describe("what the flags select", () => {
  test.each<[string, Partial<SelectionFlags>, Readonly<Record<string, [number, number]>>]>([
    ["none", {}, { new: [10, 0], archive: [0, 5] }],
    ["to the archive", { toAnalysisArchive: true }, { new: [0, 0], archive: [0, 5] }],
    ["to the archive, another bucket", { toAnalysisArchive: true, buckets: ["b"] }, { new: [0, 0], archive: [10, 0] }],
    ["one bucket", { buckets: ["analysis_archive"] }, { new: [0, 0], archive: [0, 5] }],
    ["another account", { account: "nobody" }, { new: [0, 0], archive: [0, 0] }],
    ["until long ago", { until: new Date(0) }, { new: [0, 0], archive: [0, 0] }],
  ])("single to split: %s", async (_, flags, expected) => {
    await fill({ workingSet: database }, 10);
    await fill({ workingSet: database }, 5, "analysis_archive");
    await using both = await open({ workingSet: database }, { workingSet: files("new"), archive: files("archive") });
    await both.migrations.run(await both.migrations.plan(await both.order(flags), "test", call), pace, call);
    expect(await placesOf("new")).toEqual(expected.new);
    expect(await placesOf("archive")).toEqual(expected.archive);
    await expectAllReadable(both.store, 10);
    await expectAllReadable(both.store, 5, "analysis_archive");
  });

  test("objects are as old as what was written, wherever they have been moved since", async () => {
    await fill({ workingSet: database }, 3);
    const { rows } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(opened.database.sql);
    const written = rows[0]?.now as Date;
    await fill({ workingSet: database }, 5);
    await using there = await open({ workingSet: database }, { workingSet: files("new") });
    await there.migrations.run(await there.migrations.plan(await there.order(), "test", call), pace, call);
    await using back = await open({ workingSet: files("new") }, { workingSet: database });
    const selectedIn = async (flags: Partial<SelectionFlags>) => {
      const groups = await back.migrations.preview((await back.order(flags)).selection);
      return groups.reduce((sum, { objects }) => sum + objects, 0);
    };
    // The first three were written anew.
    expect(await selectedIn({ since: written })).toBe(5);
    expect(await selectedIn({ until: written })).toBe(0);
    await fill({ workingSet: files("new") }, 1);
    const { rows: late } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(opened.database.sql);
    expect(await selectedIn({ until: late[0]?.now as Date })).toBe(5);
    expect(await selectedIn({ since: late[0]?.now as Date })).toBe(0);
  });

  test("split to single takes two runs", async () => {
    const [source, destination] = [{ workingSet: database, archive: files("archive") }, { workingSet: files("new") }];
    await fill(source, 10);
    await fill(source, 5, "analysis_archive");
    await using both = await open(source, destination);
    await both.migrations.run(await both.migrations.plan(await both.order(), "test", call), pace, call);
    expect(await placesOf("new")).toEqual([10, 0]);
    const from = await both.order({ fromAnalysisArchive: true });
    await both.migrations.run(await both.migrations.plan(from, "test", call), pace, call);
    expect(await placesOf("new")).toEqual([10, 5]);
    expect([await blobsInDatabase(), (await blobsOf("archive")).length]).toEqual([0, 0]);
  });

  /** Live objects at a directory: ordinary ones, and archived ones. */
  async function placesOf(name: string): Promise<[number, number]> {
    const { rows } = await sql<{ bucket: string; n: number }>`
      select l.bucket, count(*) as n from locations l join backends b on b.id = l.backend_id
      where l.state = 'live' and b.settings->>'archive_data_dir' = ${join(directory, name)} group by 1`.execute(
      opened.database.sql,
    );
    const countOf = (bucket: string) => rows.find((row) => row.bucket === bucket)?.n ?? 0;
    return [countOf("b"), countOf("analysis_archive")];
  }
});

describe("honesty", () => {
  test("one bad object stops nothing, is listed with its reason, and a second run tries just it", async () => {
    await fill({ workingSet: files("one") }, 20);
    const [path = ""] = await blobsOf("one");
    await truncate(path, 100);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const order = await both.order();
    const id = await both.migrations.plan(order, "test", call);
    const status = await both.migrations.run(id, pace, call);
    expect(status).toMatchObject({
      state: "incomplete",
      counts: { done: { objects: 19 }, planned: { objects: 1 }, failed: { objects: 1 } },
    });
    const failed = [];
    for await (const each of both.migrations.failures(id)) failed.push(each);
    expect(failed).toMatchObject([{ bucket: "b", code: "OBJECT_DIGEST_MISMATCH", attempts: 3 }]);
    expect((await both.migrations.findUnfinished(order))?.id).toBe(id);
    // Written anew, the object is another version: nothing is left to move.
    const key = failed[0]?.key ?? "";
    const bytes = Buffer.from("healed");
    const staged = await both.store.stage(
      { account: "a", bucket: "b", key },
      { open: async () => Readable.from([bytes]) },
      call,
    );
    await opened.database.transaction((tx) => both.store.publish(tx, [staged]), call);
    expect(await both.migrations.run(id, pace, call)).toMatchObject({
      state: "complete",
      counts: { superseded: { objects: 1 } },
    });
  });

  test("failures are objects, not attempts, and what was superseded counts as done", async () => {
    await fill({ workingSet: files("one") }, 20);
    const [first = "", second = ""] = await blobsOf("one");
    for (const path of [first, second]) await truncate(path, 100);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const seen: MigrationSnapshot[] = [];
    const watch = (snapshot: MigrationSnapshot) => seen.push(snapshot);
    await both.migrations.run(id, { ...pace, watch }, call);
    expect(Math.max(...seen.map(({ failures }) => failures))).toBe(2);
    const { rows } = await sql<{ key: string }>`
      select object_key as key from migration_moves where error_code is not null`.execute(opened.database.sql);
    await opened.database.transaction(async (tx) => {
      for (const { key } of rows) await both.store.retire(tx, { account: "a", bucket: "b", key });
    }, call);
    await both.migrations.run(id, { ...pace, watch }, call);
    const last = seen.at(-1);
    expect(last).toMatchObject({ phase: "ended", failures: 0, objectsDone: 20, objects: 20 });
    expect(last?.bytesDone).toBe(last?.bytes);
  });

  test("a place that is gone halfway ends it, with the reason; what was not tried is not listed as bad", async () => {
    await fill({ workingSet: database }, 300);
    let room = 40;
    const place = slowly(files("one"), () => {
      if (--room < 0) throw new StowageError("BACKEND_FULL", { driver: "localfs", operation: "put" });
    });
    await using both = await open({ workingSet: database }, { workingSet: place });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const phases: string[] = [];
    const watch = ({ phase }: MigrationSnapshot) => phases.push(phase);
    const failure = await failureOf(both.migrations.run(id, { ...pace, watch }, call));
    expect(failure.code).toBe("BACKEND_FULL");
    expect(phases).toContain("paused");
    const status = await both.migrations.get(id);
    expect(status).toMatchObject({ state: "incomplete", counts: { planned: { objects: expect.any(Number) } } });
    expect(status.counts.planned.objects).toBeGreaterThan(200);
    expect(status.counts.failed.objects).toBeLessThan(10);
    room = 1000;
    expect(await both.migrations.run(id, pace, call)).toMatchObject({ state: "complete" });
    await expectAllReadable(both.store, 300);
  });

  test.each([
    ["the rate that is asked for", { bytesPerSecondMax: 1000, concurrency: 8 }, 0, 1],
    ["how slow the backend is", { concurrency: 1 }, 1000, 2],
  ] as const)("what is copied is durable within a second or two, by %s", async (_, bounds, putMs, countMax) => {
    await fill({ workingSet: database }, 20);
    let nowMs = systemClock.now().getTime();
    const clock = {
      ...systemClock,
      now: () => new Date(nowMs),
      sleep: async (ms: number) => {
        nowMs += ms;
      },
    };
    const place = slowly(files("one"), () => {
      nowMs += putMs;
    });
    await using both = await open({ workingSet: database }, { workingSet: place });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const stored: number[] = [];
    const stop = onStep(({ name, fields }) => {
      if (name === "migration stored") stored.push(Number(fields.count));
    });
    const status = await both.migrations.run(id, { ...pace, ...bounds, clock }, call);
    stop();
    expect(status.state).toBe("complete");
    expect(Math.max(...stored)).toBeLessThanOrEqual(countMax);
    expect(stored.reduce((sum, count) => sum + count, 0)).toBe(20);
  });

  test("migrations of the same objects exclude each other", async () => {
    await fill({ workingSet: database }, 5);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const again = await failureOf(both.migrations.plan(await both.order({ buckets: ["b"] }), "test", call));
    expect(again).toMatchObject({ code: "MIGRATION_OVERLAPS", details: { migration: id } });
    await both.migrations.cancel(id, call);
    expect(await both.migrations.plan(await both.order({ buckets: ["b"] }), "test", call)).toBeGreaterThan(id);
  });

  test("one order that is given twice at once is one migration", async () => {
    await fill({ workingSet: database }, 5);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const order = await both.order();
    const ids = await Promise.all([1, 2, 3].map(() => both.migrations.plan(order, "test", call)));
    expect(new Set(ids).size).toBe(1);
    expect(await both.migrations.list()).toHaveLength(1);
  });

  test("was updated when the last of its objects went on", async () => {
    await fill({ workingSet: database }, 2);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const later = new Date(systemClock.now().getTime() + 3_600_000);
    await sql`update migration_moves set updated_at = ${later} where object_key = '1'`.execute(opened.database.sql);
    expect((await both.migrations.get(id)).updatedAt).toEqual(later);
  });

  test("two processes do not carry out one migration", async () => {
    await fill({ workingSet: database }, 5);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const id = await both.migrations.plan(await both.order(), "test", call);
    await using _ = await opened.database.lock(`migration ${id}`, "exclusive", 0, call);
    expect((await failureOf(both.migrations.run(id, pace, call))).code).toBe("MIGRATION_BUSY");
  });

  test("a cancelled one leaves a mix that reads, and nothing unexplained", async () => {
    // More than all batches that are at work at once.
    await fill({ workingSet: database }, 600);
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const id = await both.migrations.plan(await both.order(), "test", call);
    const abort = new AbortController();
    let switches = 0;
    const stop = onStep(({ name }) => {
      if (name === "migration switched" && ++switches === 1) abort.abort();
    });
    expect((await failureOf(both.migrations.run(id, pace, createCall({ signal: abort.signal })))).code).toBe(
      "INPUT_INTERRUPTED",
    );
    stop();
    const status = await both.migrations.cancel(id, call);
    expect(status.state).toBe("cancelled");
    expect(status.counts.done.objects).toBeGreaterThan(0);
    expect(status.counts.abandoned.objects).toBeGreaterThan(0);
    await expectAllReadable(both.store, 600);
    while ((await both.store.reap(1000, call)).isMoreLeft) {
      // until nothing is left
    }
    const { backends } = await both.store.usage(true, call);
    expect(backends.reduce((sum, { held }) => sum + (held?.blobs ?? 0), 0)).toBe(600);
  });

  test("an overwrite and a delete during the copy win", async () => {
    await fill({ workingSet: files("one") }, 10);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const id = await both.migrations.plan(await both.order(), "test", call);
    let isDone = false;
    const changes: Promise<unknown>[] = [];
    const stop = onStep(({ name }) => {
      if (name !== "migration stored" || isDone) return;
      isDone = true;
      const change = async () => {
        const staged = await both.store.stage(
          refOf("b", 3),
          { open: async () => Readable.from([Buffer.from("new")]) },
          call,
        );
        await opened.database.transaction(async (tx) => {
          await both.store.publish(tx, [staged]);
          await both.store.retire(tx, refOf("b", 4));
        }, call);
      };
      changes.push(change());
    });
    const status = await both.migrations.run(id, pace, call);
    stop();
    await Promise.all(changes);
    expect(status.state).toBe("complete");
    expect((await buffer((await both.store.get(refOf("b", 3), call)).body)).toString()).toBe("new");
    expect(await both.store.find(refOf("b", 4), call)).toBeUndefined();
  });

  test("nothing to move is complete", async () => {
    await using both = await open({ workingSet: database }, { workingSet: files("one") });
    const id = await both.migrations.plan(await both.order(), "test", call);
    expect(await both.migrations.run(id, pace, call)).toMatchObject({ state: "complete", objects: 0 });
  });
});

describe("online", () => {
  test("new objects go to the destination, what was being written is caught up with, and nothing is left at the source", async () => {
    await fill({ workingSet: files("one") }, 30);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    // A process that was started before, with the old configuration and the destination beside it.
    const sections = { workingSet: files("one"), others: [database] };
    await using old = await openObjectStore({
      database: opened.database,
      sections,
      retireGraceSeconds: 0,
      lateSeconds: 0,
    });
    const early = await old.stage(refOf("b", 30), { open: async () => Readable.from([contentOf("b", 30)]) }, call);
    const id = await both.migrations.plan(await both.order({}, { isOnline: true }), "test", call);
    const phases = new Set<string>();
    let waits = 0;
    const online: MigrationPace = {
      ...pace,
      watch: ({ phase }) => phases.add(phase),
      unready: async () => [],
      clock: {
        ...systemClock,
        async sleep() {
          // What was staged at the source before is published there while the migration waits for it.
          if (++waits === 1) await opened.database.transaction((tx) => old.publish(tx, [early]), call);
        },
      },
    };
    const status = await both.migrations.run(id, online, call);
    expect(status).toMatchObject({ state: "complete", objects: 31, counts: { done: { objects: 31 } } });
    expect([...phases]).toContain("waiting for writers");
    const late = await old.stage(refOf("b", 31), { open: async () => Readable.from([contentOf("b", 31)]) }, call);
    await opened.database.transaction((tx) => old.publish(tx, [late]), call);
    expect([await blobsOf("one"), await blobsInDatabase()]).toEqual([[], 32]);
    expect(await old.redirected(call)).toMatchObject([{ goesTo: "db" }]);
    await expectAllReadable(old, 32);
  });

  test("is refused while a process can't reach both stores, and changes nothing", async () => {
    await fill({ workingSet: files("one") }, 3);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const id = await both.migrations.plan(await both.order({}, { isOnline: true }), "test", call);
    const unready = async () => ["stowage serve 7@host"];
    const failure = await failureOf(both.migrations.run(id, { ...pace, unready }, call));
    expect(failure).toMatchObject({ code: "MIGRATION_STORE_IN_USE", details: { processes: ["stowage serve 7@host"] } });
    expect((await blobsOf("one")).length).toBe(3);
    expect(await opened.database.sql.selectFrom("write_redirects").selectAll().execute()).toEqual([]);
  });

  test("a migration back takes the redirection away", async () => {
    await fill({ workingSet: files("one") }, 3);
    await using there = await open({ workingSet: files("one") }, { workingSet: database });
    const id = await there.migrations.plan(await there.order({}, { isOnline: true }), "test", call);
    await there.migrations.run(id, { ...pace, unready: async () => [] }, call);
    await using back = await open({ workingSet: database }, { workingSet: files("one") });
    await back.migrations.run(await back.migrations.plan(await back.order(), "test", call), pace, call);
    await fill({ workingSet: files("one") }, 5);
    expect([(await blobsOf("one")).length >= 5, await blobsInDatabase()]).toEqual([true, 0]);
  });

  test("sources stay for the grace period of readers", async () => {
    await fill({ workingSet: files("one") }, 3);
    await using both = await open({ workingSet: files("one") }, { workingSet: database });
    const sections = { workingSet: database, others: [files("one")] };
    await using patient = await openObjectStore({
      database: opened.database,
      sections,
      retireGraceSeconds: 60,
      lateSeconds: 0,
    });
    const migrations = new Migrations(opened.database, patient);
    const id = await migrations.plan(await both.order({}, { isOnline: true }), "test", call);
    let sleeps = 0;
    const held: number[] = [];
    const clock = {
      ...systemClock,
      async sleep() {
        held.push((await blobsOf("one")).length);
        if (++sleeps < 3) return;
        await sql`update locations set state_since = state_since - interval '61 seconds' where state = 'retired'`.execute(
          opened.database.sql,
        );
      },
    };
    const waits: (Date | undefined)[] = [];
    const watch: MigrationPace["watch"] = ({ phase, waitsUntil }) => {
      if (phase === "waiting for readers") waits.push(waitsUntil);
    };
    const began = systemClock.now().getTime();
    const status = await migrations.run(id, { ...pace, clock, watch, unready: async () => [] }, call);
    expect(status.state).toBe("complete");
    // Its last source was left after it began.
    expect(waits[0]?.getTime()).toBeGreaterThan(began + 58_000);
    expect(waits[0]?.getTime()).toBeLessThan(systemClock.now().getTime() + 62_000);
    expect(held.slice(0, 3)).toEqual([3, 3, 3]);
    expect(await blobsOf("one")).toEqual([]);
  });
});
