import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { type Compression, defaultCompression } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { createCall, silentProgress, systemClock } from "../runtime/index.ts";
import { databaseOpener } from "./drivers/db/index.ts";
import { localfsDriver } from "./drivers/localfs/index.ts";
import {
  type BackendSection,
  type CheckStep,
  checkBackend,
  type DriverOpener,
  type ObjectRef,
  openObjectStore,
  type StagedObject,
} from "./index.ts";

const call = createCall();
const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };
let opened: TestDatabase;
let directory: string;

beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-store-"));
});
afterEach(async () => {
  await opened.clear();
  await sql`update installations set database_identity = null`.execute(opened.database.sql);
  await rm(directory, { recursive: true, force: true });
});

const database: BackendSection = { opener: databaseOpener, config: {} };

function files(name: string, compression?: Partial<Compression>): BackendSection {
  const opener = localfsDriver as DriverOpener;
  const config = localfsDriver.schema.parse({ archive_data_dir: join(directory, name) });
  return { opener, config, compression: { ...defaultCompression, ...compression } };
}

type Store = Awaited<ReturnType<typeof openObjectStore>>;

function open(workingSet: BackendSection, more: { archive?: BackendSection; others?: readonly BackendSection[] } = {}) {
  const sections = { workingSet, ...more };
  return openObjectStore({ database: opened.database, sections, retireGraceSeconds: 0, lateSeconds: 0 });
}

function bodyOf(bytes: Buffer, isSizeKnown = true) {
  const source = { open: async () => Readable.from([Buffer.from(bytes)]) };
  return isSizeKnown ? { ...source, sizeBytes: bytes.length } : source;
}

async function put(store: Store, to: ObjectRef, bytes: Buffer, isSizeKnown = true): Promise<StagedObject> {
  const staged = await store.stage(to, bodyOf(bytes, isSizeKnown), call);
  await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
  return staged;
}

async function read(store: Store, from: ObjectRef): Promise<string> {
  return (await buffer((await store.get(from, call)).body)).toString();
}

/** All files of a store's directory but markers, in order. */
async function blobsOf(name: string): Promise<string[]> {
  const paths = await readdir(join(directory, name), { recursive: true, withFileTypes: true });
  return paths
    .filter((each) => each.isFile() && !each.name.startsWith("0".repeat(24)))
    .map((each) => join(each.parentPath, each.name))
    .toSorted();
}

function scrub(store: Store, more: Partial<Parameters<Store["scrub"]>[0]> = {}) {
  const begin = () => silentProgress.begin("", undefined);
  return store.scrub({ share: 1, restart: false, seed: 1, clock: systemClock, begin, ...more }, call);
}

describe("codecs", () => {
  const cases = [
    ["none: compression is off", { enabled: false }, 102_401, "none"],
    ["none: just not long enough", { enabled: true }, 102_400, "none"],
    ["zstd: just long enough", { enabled: true }, 102_401, "zstd"],
    ["gzip", { enabled: true, algorithm: "gzip" }, 300_000, "gzip"],
    ["zstd: everything", { enabled: true, minSizeKbytes: 0 }, 1, "zstd"],
    ["none: nothing at all", { enabled: true, minSizeKbytes: 0 }, 0, "none"],
  ] as const;
  test.each(cases.flatMap((each) => [[...each, true] as const, [...each, false] as const]))(
    "%s, size known: %5$s",
    async (_, compression, size, codec, isSizeKnown) => {
      await using store = await open(files("one", compression));
      const bytes = Buffer.alloc(size, "words and more words ");
      const staged = await put(store, ref, bytes, isSizeKnown);
      expect(staged.contentBytes).toBe(size);
      const row = await opened.database.sql.selectFrom("locations").selectAll().executeTakeFirstOrThrow();
      expect(row).toMatchObject({ codec, content_bytes: size, stored_bytes: staged.storedBytes });
      if (codec !== "none" && size > 1000) expect(staged.storedBytes).toBeLessThan(size / 10);
      expect(await read(store, ref)).toBe(bytes.toString());
    },
  );

  test("a body that is compressed already is left alone", async () => {
    await using store = await open(files("one", { enabled: true }));
    const bytes = Buffer.alloc(200_000, "x");
    const staged = await store.stage(ref, { ...bodyOf(bytes), isCompressed: true }, call);
    expect(staged.storedBytes).toBeGreaterThan(bytes.length);
  });

  test("a body of unknown size that comes in single bytes and is compressed", async () => {
    await using store = await open(files("one", { enabled: true, minSizeKbytes: 1 }));
    const bytes = Buffer.alloc(5000, "abc");
    const body = { open: async () => Readable.from(Array.from(bytes, (byte) => Buffer.from([byte]))) };
    const staged = await store.stage(ref, body, call);
    await opened.database.transaction((tx) => store.publish(tx, [staged]), call);
    expect(staged).toMatchObject({ contentBytes: 5000 });
    expect(staged.storedBytes).toBeLessThan(1000);
    expect(await read(store, ref)).toBe(bytes.toString());
  });

  test.each(["none", "gzip", "zstd"] as const)("a flipped bit anywhere in a stored %s is noticed", async (codec) => {
    const compression = codec === "none" ? { enabled: false } : { enabled: true, minSizeKbytes: 0, algorithm: codec };
    await using store = await open(files("one", compression));
    await put(store, ref, Buffer.from("a document of a few words, which are few words indeed"));
    const [path = ""] = await blobsOf("one");
    const good = await readFile(path);
    for (let at = 0; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ (1 << (at % 8));
      await writeFile(path, bad);
      expect((await failureOf(store.get(ref, call))).code).toBe("OBJECT_DIGEST_MISMATCH");
    }
    await writeFile(path, good);
    expect(await read(store, ref)).toContain("few words");
  });
});

test("what lies at a backend says what it is, without the database", async () => {
  await using store = await open(files("one", { enabled: true, minSizeKbytes: 0 }));
  await put(store, { account: "ä", bucket: "b/c", key: 'k"\n' }, Buffer.from("content"));
  const [path = ""] = await blobsOf("one");
  const bytes = await readFile(path);
  expect(bytes.subarray(0, 8).toString()).toBe("STOWOBJ1");
  const { id } = await opened.database.sql.selectFrom("installations").select("id").executeTakeFirstOrThrow();
  const header = JSON.parse(bytes.subarray(12, 12 + bytes.readUInt32LE(8)).toString());
  expect(header).toMatchObject({ installation: id, account: "ä", bucket: "b/c", key: 'k"\n', codec: "zstd" });
  expect(bytes.subarray(-8).toString()).toBe("STOWEND1");
  const content = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
  expect(bytes.subarray(-56, -24).toString("hex")).toBe(content);
  expect(bytes.readBigUInt64LE(bytes.length - 24)).toBe(7n);
});

describe("several backends", () => {
  test("archived objects go to the archive's, all others to the working set's", async () => {
    await using store = await open(files("one"), { archive: files("two") });
    await put(store, ref, Buffer.from("x"));
    await put(store, { ...ref, bucket: "analysis_archive" }, Buffer.from("y"));
    expect([(await blobsOf("one")).length, (await blobsOf("two")).length]).toEqual([1, 1]);
  });

  test("what was written under an earlier configuration is read where it lies, and reported", async () => {
    await using before = await open(files("one"));
    await put(before, ref, Buffer.from("old"));
    await put(before, { ...ref, key: "other" }, Buffer.from("old"));
    await using after = await open(database, { others: [files("one")] });
    expect(await after.elsewhere(call)).toMatchObject([{ isConfigured: true, objects: 2 }]);
    expect(await read(after, ref)).toBe("old");
    await put(after, ref, Buffer.from("new"));
    expect(await read(after, ref)).toBe("new");
    expect((await after.reap(100, call)).blobsDeleted).toBe(1);
    expect(await blobsOf("one")).toHaveLength(1);
    expect(await after.elsewhere(call)).toMatchObject([{ objects: 1 }]);
  });

  test("what lies where no section leads is an error that says where, and is not lost", async () => {
    await using before = await open(files("one"));
    await put(before, ref, Buffer.from("old"));
    await using after = await open(database);
    const failure = await failureOf(after.get(ref, call));
    expect(failure).toMatchObject({ code: "BACKEND_UNKNOWN" });
    expect(failure.details.place).toContain(join(directory, "one"));
    expect(await after.elsewhere(call)).toMatchObject([{ isConfigured: false, objects: 1 }]);
    await opened.database.transaction((tx) => after.retire(tx, ref), call);
    expect((await after.reap(100, call)).blobsDeleted).toBe(0);
    expect((await before.reap(100, call)).blobsDeleted).toBe(1);
  });

  test("the same place under another address is recognised", async () => {
    await using before = await open(files("one"));
    await put(before, ref, Buffer.from("old"));
    await symlink(join(directory, "one"), join(directory, "link"));
    await rename(join(directory, "one"), join(directory, "moved"));
    await rm(join(directory, "link"));
    await using after = await open(files("moved"));
    expect(await read(after, ref)).toBe("old");
    await put(after, { ...ref, key: "other" }, Buffer.from("new"));
    const rows = await opened.database.sql.selectFrom("backends").select("settings").execute();
    expect(rows).toEqual([{ settings: { archive_data_dir: join(directory, "moved") } }]);
    expect(await after.elsewhere(call)).toEqual([]);
  });

  test.each(["usage", "scrub", "reap", "elsewhere"] as const)(
    "and %s knows it, before anything is read there",
    async (look) => {
      await using before = await open(files("one"));
      await put(before, ref, Buffer.from("old"));
      await put(before, { ...ref, key: "gone" }, Buffer.from("gone"));
      await opened.database.transaction((tx) => before.retire(tx, { ...ref, key: "gone" }), call);
      await rename(join(directory, "one"), join(directory, "moved"));
      await using after = await open(files("moved"));
      if (look === "usage") {
        const [place, ...more] = (await after.usage(true, call)).backends;
        expect(place).toMatchObject({ isConfigured: true, held: { blobs: 2, explainedBlobs: 2, missingBlobs: 0 } });
        expect(more).toEqual([]);
      } else if (look === "scrub") expect(await scrub(after)).toMatchObject({ objects: 2, counts: {}, damaged: 0 });
      else if (look === "reap") expect(await after.reap(10, call)).toMatchObject({ blobsDeleted: 1, failures: [] });
      else expect(await after.elsewhere(call)).toEqual([]);
    },
  );

  test("a new place beside it stays a new place, and nothing is written there by looking", async () => {
    await using before = await open(files("one"));
    await put(before, ref, Buffer.from("old"));
    await using after = await open(files("two"));
    expect(await after.elsewhere(call)).toMatchObject([{ isConfigured: false, objects: 1 }]);
    expect((await after.usage(true, call)).backends).toMatchObject([{ isConfigured: false }, { held: { blobs: 0 } }]);
    expect(await readdir(join(directory, "two"))).toEqual([]);
  });
});

test("a backend that fails once when it is connected to is asked again", async () => {
  let attempts = 0;
  const opener: DriverOpener = {
    ...databaseOpener,
    open: async (config, surroundings, under) => {
      if (++attempts === 1) throw new StowageError("BACKEND_FAILED", { driver: "db", operation: "open" });
      return await databaseOpener.open(config, surroundings, under);
    },
  };
  await using store = await open({ opener, config: {} });
  await put(store, ref, Buffer.from("x"));
  expect([await read(store, ref), attempts]).toEqual(["x", 2]);
});

describe("markers", () => {
  test("another installation can't write or remove anything", async () => {
    await using first = await open(files("one"));
    await put(first, ref, Buffer.from("precious"));
    const before = await blobsOf("one");
    await using other = await startTestDatabase();
    const sections = { workingSet: files("one") };
    await using second = await openObjectStore({ database: other.database, sections, retireGraceSeconds: 0 });
    expect((await failureOf(second.stage(ref, bodyOf(Buffer.from("x")), call))).code).toBe("BACKEND_FOREIGN");
    expect((await failureOf(second.claim(call))).code).toBe("BACKEND_FOREIGN");
    // Even with a row that says that the first's bytes are garbage.
    const row = await opened.database.sql.selectFrom("locations").selectAll().executeTakeFirstOrThrow();
    const { id: backendId } = await other.database.sql.selectFrom("backends").select("id").executeTakeFirstOrThrow();
    const { id: _, ...location } = row;
    const garbage = { ...location, backend_id: backendId, state: "retired" as const };
    await other.database.sql.insertInto("locations").values(garbage).execute();
    const { failures } = await second.reap(100, call);
    expect(failures).toMatchObject([{ error: { code: "BACKEND_FOREIGN" } }]);
    expect(await blobsOf("one")).toEqual(before);
    expect(await read(first, ref)).toBe("precious");
  });

  test("a restored copy of the database removes nothing until it claims the backend, and then the original does not", async () => {
    await using original = await open(files("one"));
    await put(original, ref, Buffer.from("precious"));
    // As a copy finds itself: the same rows, in another physical database.
    await sql`update installations set database_identity = 'another database'`.execute(opened.database.sql);
    const { rows: before } = await sql<{
      backend: string;
    }>`select row_to_json(b)::text as backend from backends b`.execute(opened.database.sql);
    await using copy = await open(files("one"));
    await opened.database.transaction((tx) => copy.retire(tx, ref), call);
    const refused = await copy.reap(100, call);
    expect(refused).toMatchObject({ blobsDeleted: 0, failures: [{ error: { code: "BACKEND_FOREIGN" } }] });
    expect(refused.failures[0]?.error.hint).toContain("claim");
    expect(await blobsOf("one")).toHaveLength(1);

    expect(await copy.claim(call)).toHaveLength(1);
    await using claimed = await open(files("one"));
    expect((await claimed.reap(100, call)).blobsDeleted).toBe(1);
    expect(await blobsOf("one")).toEqual([]);

    // The original still knows the marker that was replaced.
    const { generation, token } = JSON.parse(before[0]?.backend ?? "{}") as { generation: number; token: string };
    await opened.database.sql.updateTable("backends").set({ generation, token }).execute();
    await using late = await open(files("one"));
    const failure = await failureOf(late.stage(ref, bodyOf(Buffer.from("x")), call));
    expect(failure).toMatchObject({
      code: "BACKEND_FOREIGN",
      details: { found: "a later claim of the same installation" },
    });
  });

  test("a marker that is read wrong once is no stranger's", async () => {
    await using before = await open(files("one"));
    await put(before, ref, Buffer.from("x"));
    let reads = 0;
    const opener: DriverOpener = {
      ...(localfsDriver as DriverOpener),
      open: async (config, surroundings, under) => {
        const driver = await localfsDriver.open(config as never, surroundings, under);
        const get = driver.get.bind(driver);
        driver.get = (...args) => (reads++ === 0 ? Promise.resolve(Readable.from([Buffer.from("{")])) : get(...args));
        return driver;
      },
    };
    await using store = await open({ ...files("one"), opener });
    await put(store, ref, Buffer.from("y"));
    expect(reads).toBeGreaterThan(1);
    expect(await read(store, ref)).toBe("y");
  });

  test("an emptied backend is not taken for a new one", async () => {
    await using store = await open(files("one"));
    await put(store, ref, Buffer.from("x"));
    await rm(join(directory, "one"), { recursive: true });
    await using again = await open(files("one"));
    const failure = await failureOf(again.stage(ref, bodyOf(Buffer.from("x")), call));
    expect(failure).toMatchObject({ code: "BACKEND_FOREIGN", details: { found: "no marker" } });
    await again.claim(call);
    await using claimed = await open(files("one"));
    await put(claimed, ref, Buffer.from("new"));
    expect(await read(claimed, ref)).toBe("new");
  });

  test("processes that come at once agree on one marker", async () => {
    const stores = await Promise.all(Array.from({ length: 6 }, () => open(files("one"))));
    await Promise.all(stores.map((store, index) => put(store, { ...ref, key: String(index) }, Buffer.from("x"))));
    expect(
      (await readdir(join(directory, "one"), { recursive: true })).filter((name) => /0{24}/.test(name)),
    ).toHaveLength(1);
    for (const store of stores) await store[Symbol.asyncDispose]();
  });
});

describe("usage", () => {
  test("what a backend holds is explained, and what is not is told", async () => {
    await using store = await open(files("one"));
    for (let index = 0; index < 5; index++) await put(store, { ...ref, key: String(index) }, Buffer.alloc(1000));
    const [path = ""] = await blobsOf("one");
    await rm(path);
    await writeFile(path.replace(/[0-9a-f]{30}[.]blob$/, `${"f".repeat(30)}.blob`), "a stranger");
    const { backends, groups, database: size } = await store.usage(true, call);
    const held = backends.find(({ place }) => place.includes("one"))?.held;
    expect(held).toMatchObject({ blobs: 5, explainedBlobs: 4, missingBlobs: 1 });
    expect(groups).toMatchObject([
      { bucket: "b", account: "a", codec: "none", state: "live", objects: 5, contentBytes: 5000 },
    ]);
    expect(size.tables.map(({ name }) => name)).toContain("object_chunks");
    expect(size.logBytes).toBeGreaterThan(0);
    expect((await store.usage(false, call)).backends.every((each) => each.held === undefined)).toBe(true);
  });

  test("what is under no name of a document is held, and explained only as a part of a write that is known", async () => {
    await using store = await open(files("one"), { others: [database] });
    await put(store, ref, Buffer.alloc(1000));
    const writing = await store.stage({ ...ref, key: "w" }, bodyOf(Buffer.from("w")), call);
    // Not by a part of a place: the directory's name is random.
    const held = async (driver: "localfs" | "db") =>
      (await store.usage(true, call)).backends.find(({ place }) => place.split(" ")[0] === driver)?.held;
    const before = await held("localfs");
    expect(before).toMatchObject({ blobs: 2, explainedBlobs: 2, foreignBlobs: 0 });
    const { physical_key } = await opened.database.sql
      .selectFrom("locations")
      .select("physical_key")
      .where("id", "=", writing.locationId)
      .executeTakeFirstOrThrow();
    const part = join(directory, "one", physical_key.slice(0, 2), `${physical_key}.${"0".repeat(16)}.part`);
    await writeFile(part, Buffer.alloc(100));
    await writeFile(join(directory, "one", "big-foreign.bin"), Buffer.alloc(3000));
    await mkdir(join(directory, "one", "ff"), { recursive: true });
    await writeFile(join(directory, "one", "ff", `${"f".repeat(32)}.${"0".repeat(16)}.part`), Buffer.alloc(10));
    expect(await held("localfs")).toMatchObject({
      blobs: 5,
      bytes: (before?.bytes ?? 0) + 3110,
      explainedBlobs: 3,
      explainedBytes: (before?.bytes ?? 0) + 100,
      foreignBlobs: 3,
      foreignBytes: 3110,
    });
    await sql`insert into object_chunks values (${"f".repeat(32)}, 0, ${Buffer.alloc(70)})`.execute(
      opened.database.sql,
    );
    expect(await held("db")).toMatchObject({ bytes: 70, explainedBytes: 0, foreignBlobs: 1 });
    const report = await scrub(store);
    expect(report).toMatchObject({ counts: { extra: 3 }, damaged: 0 });
    const found = report.findings.map(({ physicalKey, kind, detail, bytes }) => ({ physicalKey, kind, detail, bytes }));
    const detail = "unfinished: a part of a write that no record knows of";
    expect(found).toEqual(
      expect.arrayContaining([
        { physicalKey: "big-foreign.bin", kind: "extra", detail: "nothing of stowage's", bytes: 3000 },
        { physicalKey: `ff/${"f".repeat(32)}.${"0".repeat(16)}.part`, kind: "extra", detail, bytes: 10 },
        { physicalKey: `object_chunks ${"f".repeat(32)}`, kind: "extra", detail, bytes: 70 },
      ]),
    );
    await sql`delete from object_chunks`.execute(opened.database.sql);
  });

  test("of many foreign names a scrub gives the first, and says how many more there are", async () => {
    await using store = await open(files("one"));
    await put(store, ref, Buffer.alloc(1000));
    const long = "é".repeat(120);
    await mkdir(join(directory, "one", long, long), { recursive: true });
    for (let index = 0; index < 1003; index++) await writeFile(join(directory, "one", long, long, String(index)), "x");
    const report = await scrub(store);
    expect(report.counts).toEqual({ extra: 1001 });
    const { findings } = await scrub(store);
    expect(findings.every(({ physicalKey }) => physicalKey.length < 400)).toBe(true);
    const rows = await opened.database.sql
      .selectFrom("scrub_findings")
      .selectAll()
      .where("physical_key", "=", "…")
      .execute();
    expect(rows).toMatchObject([{ bytes: 3 }, { bytes: 3 }]);
    expect(rows[0]?.detail).toMatch(/^3 more /);
  });

  test("rows that only remember bytes which are gone hold nothing", async () => {
    const sections = { workingSet: files("one") };
    await using store = await openObjectStore({ database: opened.database, sections, isAlone: true });
    await put(store, ref, Buffer.alloc(1000));
    await opened.database.transaction((tx) => store.retire(tx, ref), call);
    const sizeOf = async () => {
      const { groups } = await store.usage(false, call);
      const reclaimable = await store.reclaimable(call);
      return [groups, reclaimable].map((each) =>
        each.reduce((sum, group) => sum + ("bytes" in group ? group.bytes : group.storedBytes), 0),
      );
    };
    expect((await sizeOf()).every((bytes) => bytes > 1000)).toBe(true);
    expect((await store.reap(10, call)).blobsDeleted).toBe(1);
    expect(await sizeOf()).toEqual([0, 0]);
    expect(await store.reclaimable(call)).toMatchObject([{ state: "deleting", locations: 1, isDue: false }]);
    expect((await store.usage(false, call)).groups).toEqual([]);
  });
});

test("a directory in the place of garbage is named, stays, and keeps nothing else", async () => {
  await using store = await open(files("one"));
  for (const key of ["0", "1", "2"]) await put(store, { ...ref, key }, Buffer.from(key));
  const [path = ""] = await blobsOf("one");
  await rm(path);
  await mkdir(path);
  await writeFile(join(path, "a note"), "keep me");
  await opened.database.transaction(async (tx) => {
    for (const key of ["0", "1", "2"]) await store.retire(tx, { ...ref, key });
  }, call);
  const first = await store.reap(10, call);
  expect(first.blobsDeleted).toBe(2);
  expect(first.failures[0]?.error).toMatchObject({ code: "BACKEND_DENIED", hint: `remove the directory: ${path}` });
  expect(await blobsOf("one")).toEqual([join(path, "a note")]);
  await rm(path, { recursive: true });
  expect(await store.reap(10, call)).toMatchObject({ blobsDeleted: 1, failures: [] });
});

test("a put that was repeated until it was proven leaves no parts when it goes", async () => {
  await using store = await open(files("one"));
  await put(store, ref, Buffer.from("x"));
  const [blob = ""] = await blobsOf("one");
  // As an attempt leaves it whose own cleaning up failed.
  await writeFile(blob.replace(/[.]blob$/, `.${"0".repeat(16)}.part`), "half");
  await opened.database.transaction((tx) => store.retire(tx, ref), call);
  expect((await store.reap(10, call)).blobsDeleted).toBe(1);
  expect(await blobsOf("one")).toEqual([]);
});

test("what could be reclaimed is told, what is due and what is not yet apart", async () => {
  await using store = await open(files("one"));
  const abandoned = await store.stage(ref, bodyOf(Buffer.from("x")), call);
  const later = await store.stage(ref, bodyOf(Buffer.from("y")), call);
  await sql`update locations set lease_until = now() - interval '1 second' where id = ${abandoned.locationId}`.execute(
    opened.database.sql,
  );
  const place = `localfs archive_data_dir=${join(directory, "one")}`;
  const both = { place, state: "pending", locations: 1, bytes: later.storedBytes };
  expect(
    (await store.reclaimable(call)).toSorted((one, other) => Number(one.isDue) - Number(other.isDue)),
  ).toMatchObject([
    { ...both, isDue: false },
    { ...both, isDue: true },
  ]);
});

describe("scrub", () => {
  async function filled(count = 20): Promise<Store> {
    const store = await open(files("one"), { others: [database] });
    for (let index = 0; index < count; index++) {
      await put(store, { ...ref, key: String(index) }, Buffer.alloc(1000 + index, String(index)));
    }
    return store;
  }

  test("finds nothing where nothing is wrong", async () => {
    await using store = await filled();
    expect(await scrub(store)).toMatchObject({ objects: 20, damaged: 0, counts: {}, failures: [] });
    const checked = await opened.database.sql.selectFrom("locations").select("checked_at").execute();
    expect(checked.every(({ checked_at }) => checked_at !== null)).toBe(true);
  });

  test("finds every injected fault, and says which object it is", async () => {
    await using store = await filled();
    const paths = await blobsOf("one");
    const [gone = "", short = "", flipped = "", swapped = "", other = "", long = ""] = paths;
    await rm(gone);
    await truncate(short, 500);
    const bytes = await readFile(flipped);
    bytes[700] = (bytes[700] as number) ^ 1;
    await writeFile(flipped, bytes);
    const [one, two] = [await readFile(swapped), await readFile(other)];
    await writeFile(swapped, two);
    await writeFile(other, one);
    await writeFile(long, Buffer.concat([await readFile(long), Buffer.from("x")]));
    const stranger = paths[10]?.replace(/[0-9a-f]{28}[.]blob$/, `${"0".repeat(28)}.blob`) ?? "";
    await writeFile(stranger, await readFile(paths[10] ?? ""));
    const report = await scrub(store);
    // Of the two that were swapped, the shorter one may be taken for a part of what should be there.
    const { truncated = 0, damaged = 0, ...others } = report.counts;
    expect(others).toEqual({ missing: 1, extra: 1 });
    expect(truncated).toBeGreaterThanOrEqual(1);
    expect(truncated + damaged).toBe(5);
    expect(report.damaged).toBe(6);
    expect(report.findings.find(({ kind }) => kind === "extra")?.detail).toMatch(/^a\/b\/\d+ of installation /);
    expect(report.findings.find(({ kind }) => kind === "missing")?.detail).toMatch(/^a\/b\/\d+: /);
    // What is not ours is told, never removed.
    expect(await blobsOf("one")).toContain(stranger);
  });

  describe("bytes of another object", () => {
    const short = Buffer.from("short");
    const long = Buffer.alloc(2 * 1024 * 1024, "long ");

    async function two(bytes: Buffer, workingSet = files("one")): Promise<Store> {
      const store = await open(workingSet, { others: [database] });
      await put(store, { ...ref, key: "0" }, bytes);
      await put(store, { ...ref, key: "1" }, Buffer.concat([bytes, Buffer.from("!")]));
      return store;
    }

    const lies: readonly (readonly [string, readonly string[]])[] = [
      [
        "pointers that were exchanged",
        [
          "alter table objects drop constraint objects_location_id_key",
          `update objects o set location_id = other.location_id from objects other
             where other.key <> o.key`,
          "alter table objects add constraint objects_location_id_key unique (location_id)",
        ],
      ],
      ["rows of another account", ["update locations set account = 'other'"]],
      ["rows of another bucket", ["update locations set bucket = 'other'"]],
      ["rows of another key", ["update locations set object_key = object_key || 'x'"]],
      ["rows of another length of the content", ["update locations set content_bytes = content_bytes + 1"]],
      [
        "bytes that were exchanged with all that is recorded of them",
        [
          "alter table locations drop constraint locations_backend_id_physical_key_key",
          `update locations l set content_digest = o.content_digest, content_bytes = o.content_bytes,
             stored_digest = o.stored_digest, stored_bytes = o.stored_bytes, physical_key = o.physical_key
             from locations o where o.id <> l.id`,
          "alter table locations add constraint locations_backend_id_physical_key_key unique (backend_id, physical_key)",
        ],
      ],
    ];
    const cases = lies.flatMap(([name, statements]) =>
      [
        ["short", short, {}],
        ["long", long, {}],
        ["compressed", long, { enabled: true, minSizeKbytes: 0 }],
      ].map((each) => [name, ...each, statements] as [string, string, Buffer, Partial<Compression>, readonly string[]]),
    );
    test.each(cases)("%s: %s ones are damage to readers and to scrub", async (_, _size, bytes, compression, lie) => {
      await using store = await two(bytes, files("one", compression));
      for (const statement of lie) await sql.raw(statement).execute(opened.database.sql);
      for (const key of ["0", "1"]) {
        const failure = await failureOf(read(store, { ...ref, key }));
        expect(failure).toMatchObject({ code: "OBJECT_DIGEST_MISMATCH", details: { bucket: "b", key } });
      }
      await sql`update locations set damage = null`.execute(opened.database.sql);
      const lost: string[] = [];
      const onLost = async ({ key }: ObjectRef) => lost.push(key) > 0;
      const report = await scrub(store, { repair: { onLost } });
      expect(report).toMatchObject({ counts: { damaged: 2 }, damaged: 2, givenUp: 2 });
      expect(lost.toSorted()).toEqual(["0", "1"]);
      for (const { detail } of report.findings) expect(detail).toMatch(/^a\/b\/[01]: /);
    });

    test("one that is written anew is right again, and so is what else lies there", async () => {
      await using store = await two(short);
      await sql`update locations set object_key = 'x' where object_key = '0'`.execute(opened.database.sql);
      expect((await failureOf(read(store, { ...ref, key: "0" }))).code).toBe("OBJECT_DIGEST_MISMATCH");
      expect(await read(store, { ...ref, key: "1" })).toBe("short!");
      await put(store, { ...ref, key: "0" }, short);
      expect(await read(store, { ...ref, key: "0" })).toBe("short");
      expect(await scrub(store)).toMatchObject({ damaged: 0 });
    });

    test("a second copy is read instead, and only one that is the object's own", async () => {
      await using store = await two(short);
      await using elsewhere = await open(database, { others: [files("one")] });
      const { locationId } = await elsewhere.stage({ ...ref, key: "0" }, bodyOf(short), call);
      const { sql: queries } = opened.database;
      await sql`update locations set state = 'kept' where id = ${locationId}`.execute(queries);
      await sql`update locations set object_key = 'x' where object_key = '0' and id <> ${locationId}`.execute(queries);
      expect(await read(store, { ...ref, key: "0" })).toBe("short");
      await sql`update locations set state = 'deleting' where id = ${locationId}`.execute(queries);
      const other = await elsewhere.stage({ ...ref, key: "1" }, bodyOf(short), call);
      await sql`update locations set state = 'kept', object_key = '0' where id = ${other.locationId}`.execute(queries);
      expect((await failureOf(read(store, { ...ref, key: "0" }))).code).toBe("OBJECT_DIGEST_MISMATCH");
    });
  });

  test("repairs from a copy of the same content, and asks what becomes of the rest", async () => {
    await using store = await filled(3);
    // A second place of object 1, as a migration that deletes nothing leaves it.
    const row = await opened.database.sql
      .selectFrom("locations")
      .selectAll()
      .where("object_key", "=", "1")
      .executeTakeFirstOrThrow();
    await using elsewhere = await open(database, { others: [files("one")] });
    const staged = await elsewhere.stage({ ...ref, key: "1" }, bodyOf(Buffer.alloc(1001, "1")), call);
    await opened.database.sql
      .updateTable("locations")
      .set({ state: "kept" })
      .where("id", "=", staged.locationId)
      .execute();
    for (const path of await blobsOf("one")) await truncate(path, 100);
    const lost: string[] = [];
    const onLost = async ({ key }: ObjectRef) => {
      lost.push(key);
      return false;
    };
    const report = await scrub(store, { repair: { onLost } });
    expect(report).toMatchObject({ repaired: 1, damaged: 2 });
    expect(lost.toSorted()).toEqual(["0", "2"]);
    const object = await opened.database.sql
      .selectFrom("objects")
      .selectAll()
      .where("key", "=", "1")
      .executeTakeFirstOrThrow();
    expect(object.location_id).not.toBe(row.id);
    expect(object.version).toBe(1);
    expect(await read(store, { ...ref, key: "1" })).toBe("1".repeat(1001));
  });

  test("a large one that is damaged fails while it is read, and is read from its copy from then on", async () => {
    await using store = await open(files("one"), { others: [database] });
    const bytes = Buffer.alloc(2 * 1024 * 1024, "x");
    await put(store, ref, bytes);
    await using elsewhere = await open(database, { others: [files("one")] });
    const { locationId } = await elsewhere.stage(ref, bodyOf(bytes), call);
    await opened.database.sql.updateTable("locations").set({ state: "kept" }).where("id", "=", locationId).execute();
    for (const path of await blobsOf("one")) await truncate(path, 1_500_000);
    expect((await failureOf(read(store, ref))).code).toBe("OBJECT_DIGEST_MISMATCH");
    expect((await read(store, ref)).length).toBe(bytes.length);
    await opened.database.sql.deleteFrom("locations").where("id", "=", locationId).execute();
    expect((await failureOf(read(store, ref))).code).toBe("OBJECT_DIGEST_MISMATCH");
  });

  test("a damaged object is read from its copy meanwhile", async () => {
    await using _ = await filled(1);
    await using elsewhere = await open(database, { others: [files("one")] });
    const staged = await elsewhere.stage({ ...ref, key: "0" }, bodyOf(Buffer.alloc(1000, "0")), call);
    await opened.database.sql
      .updateTable("locations")
      .set({ state: "kept" })
      .where("id", "=", staged.locationId)
      .execute();
    for (const path of await blobsOf("one")) await rm(path);
    expect(await read(elsewhere, { ...ref, key: "0" })).toBe("0".repeat(1000));
  });

  test("what could not be read is live and wrong, too, and all that was found adds up", async () => {
    await using store = await filled(6);
    const [unreadable = "", replaced = "", kept = "", forgotten = ""] = await blobsOf("one");
    const keyAt = async (path: string) => {
      const { rows } = await sql<{ object_key: string }>`
        select object_key from locations where physical_key = ${basename(path, ".blob")}`.execute(opened.database.sql);
      return { ...ref, key: rows[0]?.object_key ?? "" };
    };
    const lost = await keyAt(forgotten);
    await put(store, await keyAt(replaced), Buffer.from("newer"));
    await rm(unreadable);
    await mkdir(unreadable);
    for (const path of [replaced, kept, forgotten]) await truncate(path, 10);
    const onLost = async ({ key }: ObjectRef) => {
      if (key === lost.key) await opened.database.transaction((tx) => store.retire(tx, lost), call);
      return true;
    };
    const report = await scrub(store, { repair: { onLost } });
    expect(report.counts).toMatchObject({ unreadable: 1, truncated: 3 });
    expect(report).toMatchObject({ givenUp: 2, forgotten: 1, notNeeded: 1, damaged: 1, unreadable: 1, repaired: 0 });
  });

  test("goes on where it was interrupted", async () => {
    await using store = await filled(250);
    const abort = new AbortController();
    let advanced = 0;
    const begin = () => ({
      advance() {
        if (++advanced === 130) abort.abort();
      },
      relabel() {},
      end() {},
    });
    const options = { share: 1, restart: false, seed: 1, clock: systemClock, begin };
    expect((await failureOf(store.scrub(options, createCall({ signal: abort.signal })))).code).toBe(
      "INPUT_INTERRUPTED",
    );
    const report = await scrub(store);
    expect(report.isResumed).toBe(true);
    expect(report.objects).toBe(250);
    expect((await scrub(store)).isResumed).toBe(false);
  });

  test("a resumed repair mends what was found before the interruption", async () => {
    await using store = await filled(250);
    for (const path of await blobsOf("one")) await truncate(path, 100);
    const abort = new AbortController();
    let advanced = 0;
    const begin = () => ({
      advance() {
        if (++advanced === 130) abort.abort();
      },
      end() {},
      relabel() {},
    });
    const options = { share: 1, restart: false, seed: 1, clock: systemClock, begin };
    expect((await failureOf(store.scrub(options, createCall({ signal: abort.signal })))).code).toBe(
      "INPUT_INTERRUPTED",
    );
    const lost = new Set<string>();
    const onLost = async ({ key }: ObjectRef) => {
      lost.add(key);
      return true;
    };
    expect(await scrub(store, { repair: { onLost } })).toMatchObject({ isResumed: true });
    expect(lost.size).toBe(250);
  });

  test("a sample is about as large as was asked for", async () => {
    await using store = await filled(200);
    const { objects } = await scrub(store, { share: 0.25 });
    expect(objects).toBeGreaterThan(20);
    expect(objects).toBeLessThan(90);
  });

  test("a backend that can't be looked at is told, and the others are read", async () => {
    await using _ = await filled(2);
    const opener: DriverOpener = {
      ...databaseOpener,
      name: "broken",
      open: async () => {
        throw new TypeError("out of order");
      },
    };
    await using both = await open(files("one"), { others: [{ opener, config: {} }] });
    expect(await scrub(both)).toMatchObject({ objects: 2, failures: [{ backend: "broken" }] });
  });
});

describe("check", () => {
  test.each([
    ["files", () => files("one")],
    ["database", () => database],
  ])("%s: every step is done and nothing is left", async (_, section) => {
    const steps = [];
    for await (const step of checkBackend(section(), opened.database, (driver) => driver, call)) steps.push(step);
    expect(steps.map(({ outcome, error }) => error?.message ?? outcome)).toEqual(steps.map(() => "ok"));
    expect(steps.map(({ name }) => name)).toEqual([
      "connect",
      "find out what it can do",
      "write",
      "write a large one",
      "read back",
      "read back the large one",
      "read a part",
      "overwrite",
      "list",
      "delete",
      "find out whose it is",
    ]);
    const { rows } = await sql`select 1 from object_chunks`.execute(opened.database.sql);
    expect(rows).toEqual([]);
  });

  test("tells whose the place is", async () => {
    const owner = async () => {
      let last: CheckStep | undefined;
      for await (const step of checkBackend(files("one"), opened.database, (driver) => driver, call)) last = step;
      return last?.error?.code ?? last?.detail;
    };
    expect(await owner()).toContain("nobody's yet");
    await using store = await open(files("one"));
    await put(store, ref, Buffer.from("x"));
    const { id } = await opened.database.sql.selectFrom("installations").select("id").executeTakeFirstOrThrow();
    expect(await owner()).toBe(`this installation's: ${id}`);
    await sql`update installations set database_identity = 'another database'`.execute(opened.database.sql);
    expect(await owner()).toContain("moved or restored");
    // As the original finds itself after a copy of its database has claimed the place.
    const { rows } = await sql<{ token: string }>`select token from backends where generation = 1`.execute(
      opened.database.sql,
    );
    await store.claim(call);
    await opened.database.sql
      .updateTable("backends")
      .set({ generation: 1, token: rows[0]?.token ?? "" })
      .where("driver", "=", "localfs")
      .execute();
    expect(await owner()).toBe("BACKEND_FOREIGN");
    await sql`update installations set id = gen_random_uuid()`.execute(opened.database.sql);
    expect(await owner()).toBe("BACKEND_FOREIGN");
    expect(await blobsOf("one")).toHaveLength(1);
  });

  test("a step that fails is told, those after it are skipped, what was written goes", async () => {
    const opener: DriverOpener = {
      ...(localfsDriver as DriverOpener),
      open: async (config, surroundings, under) => {
        const driver = await localfsDriver.open(config as never, surroundings, under);
        driver.get = async () => Readable.from([Buffer.from("something else")]);
        return driver;
      },
    };
    const outcomes = [];
    const section = { ...files("one"), opener };
    for await (const { name, outcome } of checkBackend(section, opened.database, (driver) => driver, call)) {
      outcomes.push(`${name}: ${outcome}`);
    }
    expect(outcomes).toContain("read back: failed");
    expect(outcomes).toContain("list: skipped");
    expect(await blobsOf("one")).toEqual([]);
  });
});
