import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { sectionsOf } from "../../test/objects/sections.ts";
import type { LocationState } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { createCall } from "../runtime/index.ts";
import { DatabaseDriver } from "./drivers/db/index.ts";
import {
  type BodySource,
  createPhysicalKey,
  type DriverCapabilities,
  type ObjectDriver,
  type ObjectRef,
  type ObjectStore,
  type ObjectStoreOptions,
  openObjectStore,
  type PhysicalKey,
  parsePhysicalKey,
  type StagedObject,
  transitions,
} from "./index.ts";

const call = createCall();
const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };
const otherRef: ObjectRef = { ...ref, key: "other" };
const large = Buffer.alloc(3 * 1024 * 1024, "large ");

let opened: TestDatabase;
beforeAll(async () => {
  opened = await startTestDatabase();
});
afterEach(async () => {
  expect(await orphanBlobs()).toEqual([]);
  await opened.clear();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

describe("put, get, overwrite, retire", () => {
  test.each([
    ["an empty document", Buffer.alloc(0)],
    ["a small document", Buffer.from("hello")],
    ["a document of exactly what is checked first", Buffer.alloc(1024 * 1024, 7)],
    ["a document one byte larger", Buffer.alloc(1024 * 1024 + 1, 7)],
    ["a large document", large],
  ])("%s comes back as it went", async (_, bytes) => {
    const store = await open();
    const version = await put(store, ref, bytes);
    expect(version).toMatchObject({ ref, version: 1, contentBytes: bytes.length, contentDigest: digestOf(bytes) });
    expect((await read(store, ref)).equals(bytes)).toBe(true);
    expect(await store.find(ref, call)).toMatchObject({ version: 1, contentDigest: digestOf(bytes) });
    expect(await states()).toEqual(["live"]);
  });

  test("what is not there is not found", async () => {
    const store = await open();
    expect(await store.find(ref, call)).toBeUndefined();
    expect(await failureOf(store.get(ref, call))).toMatchObject({ code: "OBJECT_NOT_FOUND", details: { key: "k" } });
    expect(await database().transaction((tx) => store.retire(tx, ref), call)).toBe(false);
  });

  test("account, bucket and key are all part of the name", async () => {
    const store = await open();
    const refs = [ref, otherRef, { ...ref, bucket: "other" }, { ...ref, account: "other" }];
    for (const [index, each] of refs.entries()) await put(store, each, Buffer.from([index]));
    for (const [index, each] of refs.entries()) expect(await read(store, each)).toEqual(Buffer.from([index]));
  });

  test("a staged object is invisible until it is published", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    expect(await store.find(ref, call)).toBeUndefined();
    expect(await states()).toEqual(["pending"]);
    await publish(store, [staged]);
    expect(await read(store, ref)).toEqual(Buffer.from("x"));
  });

  test("a transaction that is rolled back publishes nothing, and can be repeated", async () => {
    const store = await open();
    await put(store, ref, Buffer.from("old"));
    const staged = await store.stage(ref, bodyOf("new"), call);
    const rolledBack = database().transaction(async (tx) => {
      await store.publish(tx, [staged]);
      throw new RangeError("the caller's own reason");
    }, call);
    await expect(rolledBack).rejects.toThrow(RangeError);
    expect(await read(store, ref)).toEqual(Buffer.from("old"));
    expect((await states()).toSorted()).toEqual(["live", "pending"]);
    await publish(store, [staged]);
    expect(await read(store, ref)).toEqual(Buffer.from("new"));
  });

  test("an overwrite is a new version at a new location, and the old one is retired", async () => {
    const store = await open();
    const first = await put(store, ref, Buffer.from("one"));
    const second = await put(store, ref, Buffer.from("two"));
    expect(second.version).toBe(2);
    expect(second.locationId).not.toBe(first.locationId);
    expect(await stateOf(first.locationId)).toBe("retired");
    expect(await read(store, ref)).toEqual(Buffer.from("two"));
  });

  test("several objects become visible together or not at all", async () => {
    const store = await open();
    const staged = [await store.stage(ref, bodyOf("1"), call), await store.stage(otherRef, bodyOf("2"), call)];
    await endLeases(staged[1]);
    await reap(store);
    expect((await failureOf(publish(store, staged))).code).toBe("OBJECT_LEASE_LOST");
    expect(await store.find(ref, call)).toBeUndefined();
  });

  test("a retired object is gone at once for new readers, its bytes stay for those who read", async () => {
    const store = await open();
    const { locationId } = await put(store, ref, large);
    const { body } = await store.get(ref, call);
    expect(await database().transaction((tx) => store.retire(tx, ref), call)).toBe(true);
    expect((await failureOf(store.get(ref, call))).code).toBe("OBJECT_NOT_FOUND");
    await reap(store);
    expect((await buffer(body)).equals(large)).toBe(true);
    expect(await stateOf(locationId)).toBe("retired");
  });

  test("a body that fails leaves a location that the reaper finds, and nothing visible", async () => {
    const store = await open();
    const body = { open: async () => Readable.from(failing(new RangeError("broken body"))) };
    await expect(store.stage(ref, body, call)).rejects.toThrow("broken body");
    expect(await states()).toEqual(["pending"]);
    expect(await store.find(ref, call)).toBeUndefined();
    await endLeases();
    const eager = await open({ lateSeconds: 0 });
    await reap(eager);
    expect(await states()).toEqual([]);
  });

  test("a backend is registered once for its settings", async () => {
    await open({ settings: { path: "/x", depth: "1" } });
    await open({ settings: { depth: "1", path: "/x" } });
    await Promise.all([open({ settings: { path: "/y" } }), open({ settings: { path: "/y" } })]);
    const rows = await database().sql.selectFrom("backends").select("settings").execute();
    expect(rows).toHaveLength(2);
  });
});

describe("bytes that are wrong or missing", () => {
  test("a small document with a wrong byte fails before any byte", async () => {
    const store = await open();
    await put(store, ref, Buffer.from("precious"));
    await sql`update object_chunks set bytes = set_byte(bytes, 3, 0)`.execute(database().sql);
    expect(await failureOf(store.get(ref, call))).toMatchObject({
      code: "OBJECT_DIGEST_MISMATCH",
      details: { bucket: "b", key: "k", expected: digestOf(Buffer.from("precious")) },
    });
  });

  test.each([
    ["a wrong byte in the first chunk", sql`update object_chunks set bytes = set_byte(bytes, 0, 0) where position = 0`],
    ["a wrong byte in the last chunk", sql`update object_chunks set bytes = set_byte(bytes, 9, 0) where position = 11`],
    ["a chunk that is too short", sql`update object_chunks set bytes = substr(bytes, 2) where position = 5`],
    ["a chunk that is too long", sql`update object_chunks set bytes = bytes || 'x'::bytea where position = 5`],
    ["chunks in another order", sql`update object_chunks set position = 111 - position`],
    ["a size that is too small", sql`update object_blobs set bytes = bytes - 1`],
    ["a size that is too large", sql`update object_blobs set bytes = bytes + 262144`],
    ["a missing last chunk", sql`delete from object_chunks where position = 11`],
  ])("a large document never ends without an error: %s", async (_, damage) => {
    const store = await open();
    await put(store, ref, Buffer.concat([large.subarray(0, large.length - 10), Buffer.from("last bytes")]));
    await damage.execute(database().sql);
    // Positions are unique at each moment.
    await sql`update object_chunks set position = position - 100 where position >= 100`.execute(database().sql);
    const failure = await failureOf(store.get(ref, call).then(({ body }) => buffer(body)));
    expect(["OBJECT_DIGEST_MISMATCH", "BACKEND_KEY_MISSING"]).toContain(failure.code);
  });

  test("a wrong byte that is read right the second time is no failure", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped });
    await put(store, ref, Buffer.from("right"));
    let reads = 0;
    wrapped.get = async (key, range, under) =>
      reads++ === 0 ? Readable.from([Buffer.from("wrong")]) : wrapped.inner.get(key, range, under);
    expect(await read(store, ref)).toEqual(Buffer.from("right"));
    expect(reads).toBe(2);
  });

  test("a large document that is read right the second time fails as a read, not as damage", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped });
    await put(store, ref, large);
    let reads = 0;
    wrapped.get = async (key, range, under) =>
      reads++ === 0 ? Readable.from([Buffer.alloc(large.length)]) : wrapped.inner.get(key, range, under);
    const failure = await failureOf(store.get(ref, call).then(({ body }) => buffer(body)));
    expect(failure).toMatchObject({ code: "BACKEND_FAILED", cause: { actual: "no header" } });
    expect(reads).toBe(2);
    expect((await read(store, ref)).equals(large)).toBe(true);
  });

  test("an object at another backend is not looked for in this one", async () => {
    await put(await open({ settings: { path: "/elsewhere" } }), ref, Buffer.from("x"));
    const failure = await failureOf((await open()).get(ref, call));
    expect(failure).toMatchObject({ code: "BACKEND_UNKNOWN", details: { place: "db path=/elsewhere" } });
    expect(failure.hint).toContain("other_object_stores");
  });

  test("bytes that are gone because the object moved: the pointer is read once more", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped, retireGraceSeconds: 0 });
    await put(store, ref, Buffer.from("old"));
    let reads = 0;
    wrapped.get = async (key, range, under) => {
      if (reads++ === 0) {
        await put(store, ref, Buffer.from("new"));
        await reap(store);
      }
      return wrapped.inner.get(key, range, under);
    };
    const { version, body } = await store.get(ref, call);
    expect(version.version).toBe(2);
    expect(await buffer(body)).toEqual(Buffer.from("new"));
  });

  test("bytes that are gone though the pointer says they are there", async () => {
    const store = await open();
    await put(store, ref, Buffer.from("x"));
    await sql`delete from object_chunks`.execute(database().sql);
    await sql`delete from object_blobs`.execute(database().sql);
    expect((await failureOf(store.get(ref, call))).code).toBe("BACKEND_KEY_MISSING");
  });

  test("a stream that the backend breaks off ends with a failure, not never", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped });
    await put(store, ref, large);
    wrapped.get = async () => {
      const stream = new Readable({ read() {} });
      stream.push(large.subarray(0, 1000));
      setImmediate(() => stream.destroy());
      return stream;
    };
    const { body } = await store.get(ref, call);
    await expect(buffer(body)).rejects.toThrow();
  });

  test("a reader that leaves early lets go of the backend's stream", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped });
    await put(store, ref, large);
    const streams: Readable[] = [];
    wrapped.get = async (key, range, under) => {
      const stream = await wrapped.inner.get(key, range, under);
      streams.push(stream);
      return stream;
    };
    const { body } = await store.get(ref, call);
    for await (const _ of body) break;
    await expect.poll(() => streams.map(({ destroyed }) => destroyed)).toEqual([true]);
  });

  test("a backend that says it stored something else is not believed", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped });
    wrapped.put = async (key, body, under) => ({
      ...(await wrapped.inner.put(key, body, under)),
      digest: digestOf(Buffer.from("something else")),
    });
    expect((await failureOf(store.stage(ref, bodyOf("x"), call))).code).toBe("BACKEND_FAILED");
    expect(await states()).toEqual(["pending"]);
  });

  test("what a backend can't digest is read back", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()), { serverDigest: false });
    const store = await open({ driver: wrapped });
    let reads = 0;
    wrapped.get = async (key, range, under) => {
      reads++;
      return wrapped.inner.get(key, range, under);
    };
    await put(store, ref, large);
    expect(reads).toBe(1);
    wrapped.get = async () => Readable.from([Buffer.from("not what was put")]);
    expect((await failureOf(store.stage(otherRef, bodyOf("x"), call))).code).toBe("BACKEND_FAILED");
  });
});

describe("the reaper", () => {
  test("takes nothing that lives, is leased, is kept, or is in its grace period", async () => {
    const store = await open();
    await put(store, ref, Buffer.from("old"));
    await put(store, ref, Buffer.from("new"));
    await store.stage(otherRef, bodyOf("staged"), call);
    const kept = await put(store, { ...ref, key: "kept" }, Buffer.from("kept"));
    await sql`delete from objects where key = 'kept'`.execute(database().sql);
    await sql`update locations set state = 'kept', state_since = 'epoch' where id = ${kept.locationId}`.execute(
      database().sql,
    );
    expect(await reap(store)).toMatchObject({ blobsDeleted: 0, bytesDeleted: 0 });
    expect((await states()).toSorted()).toEqual(["kept", "live", "pending", "retired"]);
  });

  test("takes retired locations when their grace period is over", async () => {
    const store = await open({ retireGraceSeconds: 3600 });
    const { locationId, storedBytes } = await put(store, ref, Buffer.from("old"));
    await put(store, ref, Buffer.from("new"));
    await age(locationId, 3000);
    expect((await reap(store)).blobsDeleted).toBe(0);
    await age(locationId, 3601);
    expect(await reap(store)).toMatchObject({
      blobsDeleted: 1,
      bytesDeleted: storedBytes,
      isMoreLeft: false,
      failures: [],
    });
    expect(await stateOf(locationId)).toBeUndefined();
    expect(await blobCount()).toBe(1);
    expect(await read(store, ref)).toEqual(Buffer.from("new"));
  });

  test("takes a proven pending location when its lease has ended, at once", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    await endLeases(staged);
    expect((await reap(store)).blobsDeleted).toBe(1);
    expect(await states()).toEqual([]);
    expect(await blobCount()).toBe(0);
  });

  test("deletes what was never proven once more when nothing can arrive any longer", async () => {
    const store = await open({ lateSeconds: 60 });
    const { locationId, physicalKey } = await abandonedPut(store);
    await reap(store);
    expect(await stateOf(locationId)).toBe("deleting");
    // The writer was not dead: what it sent arrives only now.
    await new DatabaseDriver(database()).put(physicalKey, bodyOf("late"), call);
    await reap(store);
    expect(await blobCount()).toBe(1);
    await age(locationId, 61);
    expect((await reap(store)).blobsDeleted).toBe(1);
    expect(await stateOf(locationId)).toBeUndefined();
    expect(await blobCount()).toBe(0);
  });

  test("deletes only bytes that have a row", async () => {
    const store = await open({ retireGraceSeconds: 0, lateSeconds: 0 });
    const stranger = createPhysicalKey();
    const driver = new DatabaseDriver(database());
    await driver.put(stranger, bodyOf("of another installation"), call);
    await put(store, ref, Buffer.from("x"));
    await database().transaction((tx) => store.retire(tx, ref), call);
    while ((await reap(store)).blobsDeleted > 0) {
      // until it finds nothing more
    }
    const left = [];
    for await (const { key } of driver.list(undefined, call)) left.push(key);
    expect(left).toEqual([stranger]);
    await driver.delete(stranger, call);
  });

  test("leaves other backends alone", async () => {
    const one = await open({ settings: { name: "one" }, retireGraceSeconds: 0 });
    const other = await open({ settings: { name: "other" }, retireGraceSeconds: 0 });
    await put(one, ref, Buffer.from("x"));
    await database().transaction((tx) => one.retire(tx, ref), call);
    expect((await reap(other)).blobsDeleted).toBe(0);
    expect((await reap(one)).blobsDeleted).toBe(1);
  });

  test("a pass is bounded, says so, and goes on where it was", async () => {
    const store = await open({ retireGraceSeconds: 0 });
    for (let index = 0; index < 5; index++) await put(store, ref, Buffer.from([index]));
    expect(await store.reap(2, call)).toMatchObject({ blobsDeleted: 2, isMoreLeft: true });
    expect(await store.reap(2, call)).toMatchObject({ blobsDeleted: 2, isMoreLeft: true });
    expect(await store.reap(2, call)).toMatchObject({ blobsDeleted: 0, isMoreLeft: false });
  });

  test("a pass that failed at the backend is gone on with", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped, retireGraceSeconds: 0 });
    const { locationId } = await put(store, ref, Buffer.from("x"));
    await database().transaction((tx) => store.retire(tx, ref), call);
    wrapped.purge = async () => {
      throw new StowageError("BACKEND_UNREACHABLE", { driver: "db" });
    };
    expect((await reap(store)).failures).toMatchObject([{ error: { code: "BACKEND_UNREACHABLE" } }]);
    expect(await stateOf(locationId)).toBe("deleting");
    wrapped.purge = (key, sizeBytes, under) => wrapped.inner.purge(key, sizeBytes, under);
    expect((await reap(store)).blobsDeleted).toBe(1);
    expect(await states()).toEqual([]);
  });

  test("one that can't be deleted keeps neither the others of its pass nor those of the next", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped, retireGraceSeconds: 0 });
    for (const content of ["one", "two", "three"]) await put(store, ref, Buffer.from(content));
    const locked = await database().sql.selectFrom("locations").select("physical_key").orderBy("id").executeTakeFirst();
    wrapped.purge = async (key, sizeBytes, under) => {
      if (key === locked?.physical_key) throw new StowageError("BACKEND_FAILED", { driver: "db", operation: "delete" });
      await wrapped.inner.purge(key, sizeBytes, under);
    };
    expect((await store.reap(1, call)).failures).toMatchObject([{ error: { code: "BACKEND_FAILED" } }]);
    expect(await store.reap(1, call)).toMatchObject({ blobsDeleted: 1 });
    await put(store, ref, Buffer.from("four"));
    expect((await reap(store)).failures).toMatchObject([{ error: { code: "BACKEND_FAILED" } }]);
    expect(await states()).toEqual(["deleting", "live"]);
  });

  test("one that can't be deleted with the others is deleted alone, and what can't be either keeps nothing", async () => {
    const wrapped = new WrappedDriver(new DatabaseDriver(database()));
    const store = await open({ driver: wrapped, retireGraceSeconds: 0 });
    for (const content of ["one", "two", "three", "four"]) await put(store, ref, Buffer.from(content));
    const [locked, slow] = await database().sql.selectFrom("locations").select("physical_key").orderBy("id").execute();
    const alone: string[] = [];
    wrapped.purgeMany = async (blobs, under) => {
      const others = blobs.filter(({ key }) => key !== locked?.physical_key && key !== slow?.physical_key);
      return (await wrapped.inner.purgeMany?.(others, under)) ?? new Set();
    };
    wrapped.purge = async (key, sizeBytes, under) => {
      alone.push(key);
      if (key === locked?.physical_key) throw new StowageError("BACKEND_FAILED", { driver: "db", operation: "purge" });
      await wrapped.inner.purge(key, sizeBytes, under);
    };
    const { blobsDeleted, failures } = await reap(store);
    expect(blobsDeleted).toBe(2);
    expect(failures).toMatchObject([{ error: { code: "BACKEND_FAILED" } }]);
    expect(alone.toSorted()).toEqual([locked?.physical_key, slow?.physical_key].toSorted());
    expect(await states()).toEqual(["deleting", "live"]);
    // What fails as a whole is nobody's failure.
    wrapped.purgeMany = () => Promise.reject(new StowageError("BACKEND_FAILED", { driver: "db", operation: "purge" }));
    wrapped.purge = (key, sizeBytes, under) => wrapped.inner.purge(key, sizeBytes, under);
    expect(await reap(store)).toMatchObject({ blobsDeleted: 1, failures: [] });
    expect(await states()).toEqual(["live"]);
  });

  test("two reapers at once do what one does", async () => {
    const store = await open({ retireGraceSeconds: 0 });
    for (let index = 0; index < 10; index++) await put(store, ref, Buffer.from([index]));
    await Promise.all([reap(store), reap(store), reap(store)]);
    await reap(store);
    expect(await states()).toEqual(["live"]);
    expect(await read(store, ref)).toEqual(Buffer.from([9]));
  });
});

describe("leases", () => {
  test("what the reaper has taken can't be published", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    await endLeases(staged);
    await reap(store);
    expect(await failureOf(publish(store, [staged]))).toMatchObject({
      code: "OBJECT_LEASE_LOST",
      details: { bucket: "b", key: "k" },
    });
    expect(await store.find(ref, call)).toBeUndefined();
  });

  test("nor what the reaper may take at any time", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    await endLeases(staged);
    expect((await failureOf(publish(store, [staged]))).code).toBe("OBJECT_LEASE_LOST");
  });

  test("an object is published once", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    await publish(store, [staged]);
    expect((await failureOf(publish(store, [staged]))).code).toBe("OBJECT_LEASE_LOST");
    expect(await store.find(ref, call)).toMatchObject({ version: 1 });
  });

  test("a writer whose location was taken while it wrote is told", async () => {
    const store = await open({ lateSeconds: 0 });
    const body: BodySource = {
      open: async () => {
        await endLeases();
        await reap(store);
        return Readable.from([Buffer.from("x")]);
      },
    };
    expect((await failureOf(store.stage(ref, body, call))).code).toBe("OBJECT_LEASE_LOST");
    // Its bytes came after the reaper had been there. Its row has gone, so they are what `list` shows and nobody deletes.
    await sql`delete from object_chunks`.execute(database().sql);
    await sql`delete from object_blobs`.execute(database().sql);
  });

  test("a long put keeps its lease", async () => {
    const store = await open({ leaseSeconds: 0.3 });
    const body = {
      open: async () =>
        Readable.from(
          (async function* () {
            yield Buffer.from("slow");
            const until = await databaseTime(0.7);
            while ((await databaseTime(0)) < until) yield Buffer.from(".");
          })(),
        ),
    };
    const staged = await store.stage(ref, body, call);
    expect(await stateOf(staged.locationId)).toBe("pending");
  });

  test("a put is stopped when its lease is lost, even if its body has stalled", async () => {
    const store = await open({ leaseSeconds: 0.3 });
    const stalled = new Readable({ read() {} });
    const body: BodySource = {
      open: async () => {
        await sql`update locations set state = 'deleting'`.execute(database().sql);
        return stalled;
      },
    };
    expect(await failureOf(store.stage(ref, body, call))).toMatchObject({
      code: "OBJECT_LEASE_LOST",
      details: { bucket: "b", key: "k" },
    });
    expect(stalled.destroyed).toBe(true);
    expect(await blobCount()).toBe(0);
  });
});

describe("races", () => {
  const rounds = Array.from({ length: 12 }, (_, round) => round);

  test("two publishers of one key: both become versions, one is visible", async () => {
    const store = await open();
    for (const round of rounds) {
      const key = { ...ref, key: `two publishers ${round}` };
      const staged = await Promise.all([store.stage(key, bodyOf("1"), call), store.stage(key, bodyOf("2"), call)]);
      const versions = (await Promise.all(staged.map((each) => publish(store, [each])))).flat();
      expect(versions.map(({ version }) => version).toSorted()).toEqual([1, 2]);
      const visible = await store.find(key, call);
      expect(visible?.locationId).toBe(versions.find(({ version }) => version === 2)?.locationId);
      const late = await Promise.all(staged.map(({ locationId }) => stateOf(locationId)));
      expect(late.toSorted()).toEqual(["live", "retired"]);
    }
  });

  test("two publishers of two keys in opposite orders", async () => {
    const store = await open();
    for (const _ of rounds) {
      const stage = async (refs: readonly ObjectRef[]) => {
        const staged = [];
        for (const each of refs) staged.push(await store.stage(each, bodyOf("x"), call));
        return staged;
      };
      const one = await stage([ref, otherRef]);
      const other = await stage([otherRef, ref]);
      const [[first] = [], [second] = []] = await Promise.all([publish(store, one), publish(store, other)]);
      expect([first?.ref, second?.ref]).toEqual([ref, otherRef]);
    }
    // Both keys come from the same transaction.
    expect(await store.find(ref, call)).toMatchObject({ version: 24 });
    expect((await states()).filter((state) => state === "live")).toHaveLength(2);
  });

  test("publish and reap: it is published whole, or the publisher is told", async () => {
    const store = await open();
    for (const round of rounds) {
      const key = { ...ref, key: `publish and reap ${round}` };
      const staged = await store.stage(key, bodyOf(`${round}`), call);
      // The lease ends between the publisher's begin and its end, as a transaction's time is that of its begin.
      const publishing = database().transaction(async (tx) => {
        await tx.sql.selectFrom("backends").select("id").execute();
        await endLeases(staged);
        return store.publish(tx, [staged]);
      }, call);
      const [published] = await Promise.allSettled([publishing, reap(store)]);
      if (published.status === "fulfilled") expect(await read(store, key)).toEqual(Buffer.from(`${round}`));
      else {
        expect(published.reason).toMatchObject({ code: "OBJECT_LEASE_LOST" });
        expect(await store.find(key, call)).toBeUndefined();
      }
    }
  });

  test("a publisher that was first keeps its location from the reaper", async () => {
    const store = await open();
    const staged = await store.stage(ref, bodyOf("x"), call);
    await database().transaction(async (tx) => {
      await store.publish(tx, [staged]);
      // Seen from outside it is still pending, and now its lease is over.
      const { isMoreLeft } = await reap(store);
      expect(isMoreLeft).toBe(false);
    }, call);
    expect(await read(store, ref)).toEqual(Buffer.from("x"));
  });

  test("retire and publish of one key: the last one decides, nothing dangles", async () => {
    const store = await open();
    for (const _ of rounds) {
      await put(store, ref, Buffer.from("old"));
      const staged = await store.stage(ref, bodyOf("new"), call);
      await Promise.all([publish(store, [staged]), database().transaction((tx) => store.retire(tx, ref), call)]);
      const visible = await store.find(ref, call);
      const state = await stateOf(staged.locationId);
      expect(state).toBe(visible ? "live" : "retired");
      if (visible) expect(visible.locationId).toBe(staged.locationId);
    }
    expect(await danglingPointers()).toBe(0);
  });

  test("readers during overwrites get one whole version", async () => {
    const store = await open({ retireGraceSeconds: 900 });
    const versionOf = (index: number) => Buffer.alloc(1_400_000, `version ${index} `);
    await put(store, ref, versionOf(0));
    let isWriting = true;
    const write = async () => {
      for (let index = 1; index <= 6; index++) await put(store, ref, versionOf(index));
      isWriting = false;
    };
    const reader = async () => {
      let last = 0;
      while (isWriting) {
        const { version, body } = await store.get(ref, call);
        const bytes = await buffer(body);
        expect(digestOf(bytes)).toBe(version.contentDigest);
        expect(bytes.equals(versionOf(version.version - 1))).toBe(true);
        expect(version.version).toBeGreaterThanOrEqual(last);
        last = version.version;
      }
    };
    await Promise.all([write(), reader(), reader(), reader()]);
  });
});

describe("the table of transitions", () => {
  const all = Object.keys(transitions) as LocationState[];

  /** What can be done to a location, by name. */
  const attempts: Readonly<Record<string, (store: ObjectStore, staged: StagedObject) => Promise<unknown>>> = {
    publish: (store, staged) => publish(store, [staged]),
    retire: (store) => database().transaction((tx) => store.retire(tx, ref), call),
    overwrite: (store) => put(store, ref, Buffer.from("another version")),
    reap: (store) => reap(store),
    "end its lease and reap": async (store) => {
      await endLeases();
      await reap(store);
    },
  };

  test.each(all)("is what happens to a location that is %s", async (state) => {
    const reached = new Set<LocationState>();
    for (const attempt of Object.values(attempts)) {
      await opened.clear();
      const wrapped = new WrappedDriver(new DatabaseDriver(database()));
      const store = await open({ driver: wrapped, retireGraceSeconds: 0 });
      const staged = await store.stage(ref, bodyOf("x"), call);
      if (state !== "pending") await publish(store, [staged]);
      // What is kept is a second copy of a version that lies elsewhere.
      if (state === "kept") await put(store, ref, Buffer.from("x"));
      else if (state !== "pending" && state !== "live") {
        await database().transaction((tx) => store.retire(tx, ref), call);
      }
      // A migration does the one, and what the other is never lasts: both are written down.
      if (state === "kept" || state === "deleting") {
        await sql`update locations set state = ${state} where id = ${staged.locationId}`.execute(database().sql);
      }
      // A reaper goes from the decision to the end in one pass: it is stopped between the two.
      wrapped.purge = async () => {
        throw new StowageError("BACKEND_UNREACHABLE", { driver: "db" });
      };
      await attempt(store, staged).catch((error: unknown) => {
        if (!(error instanceof StowageError)) throw error;
      });
      const now = await stateOf(staged.locationId);
      if (now !== undefined && now !== state) reached.add(now);
    }
    // `kept` is what a migration does, which there is none of yet.
    const expected = transitions[state].filter((next) => next !== "kept");
    expect([...reached].toSorted()).toEqual(expected.toSorted());
  });
});

describe("against a model", () => {
  test("whatever is done in whatever order", async () => {
    const keys = ["x", "y", "z"] as const;
    const key = fc.constantFrom(...keys);
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("put" as const),
        key,
        size: fc.integer({ min: 0, max: 600_000 }),
        fill: fc.nat(255),
      }),
      fc.record({ kind: fc.constant("retire" as const), key }),
      fc.record({ kind: fc.constant("get" as const), key }),
      fc.record({ kind: fc.constant("abandon" as const), key }),
      fc.record({ kind: fc.constant("rollback" as const), key }),
      fc.record({ kind: fc.constant("expire" as const) }),
      fc.record({ kind: fc.constant("reap" as const), limit: fc.integer({ min: 1, max: 4 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        await opened.clear();
        const store = await open({ retireGraceSeconds: 0, lateSeconds: 0 });
        const model = new Map<string, Buffer>();
        const versions = new Map<string, number>();
        for (const each of steps) {
          if (each.kind === "put") {
            const bytes = Buffer.alloc(each.size, each.fill);
            const { version } = await put(store, { ...ref, key: each.key }, bytes);
            expect(version).toBe(model.has(each.key) ? (versions.get(each.key) ?? 0) + 1 : 1);
            versions.set(each.key, version);
            model.set(each.key, bytes);
          } else if (each.kind === "retire") {
            const isRetired = await database().transaction((tx) => store.retire(tx, { ...ref, key: each.key }), call);
            expect(isRetired).toBe(model.delete(each.key));
          } else if (each.kind === "get") {
            await expectModel(store, model, each.key);
          } else if (each.kind === "abandon") {
            await store.stage({ ...ref, key: each.key }, bodyOf("never published"), call);
          } else if (each.kind === "rollback") {
            const staged = await store.stage({ ...ref, key: each.key }, bodyOf("rolled back"), call);
            const rolledBack = database().transaction(async (tx) => {
              await store.publish(tx, [staged]);
              throw new RangeError("rolled back");
            }, call);
            await expect(rolledBack).rejects.toThrow(RangeError);
          } else if (each.kind === "expire") {
            await endLeases();
          } else {
            await store.reap(each.limit, call);
          }
        }
        for (const each of keys) await expectModel(store, model, each);
        await endLeases();
        while ((await store.reap(100, call)).blobsDeleted > 0) {
          // until nothing is left to do
        }
        for (const each of keys) await expectModel(store, model, each);
        expect(await states()).toEqual([...model].map(() => "live"));
        expect(await blobCount()).toBe(model.size);
      }),
      { numRuns: 25 },
    );
  });

  async function expectModel(store: ObjectStore, model: ReadonlyMap<string, Buffer>, key: string): Promise<void> {
    const expected = model.get(key);
    if (expected) expect((await read(store, { ...ref, key })).equals(expected)).toBe(true);
    else expect((await failureOf(store.get({ ...ref, key }, call))).code).toBe("OBJECT_NOT_FOUND");
  }
});

describe("physical keys", () => {
  test("are random, and are parsed as they were made", () => {
    const keys = Array.from({ length: 1000 }, () => createPhysicalKey());
    expect(new Set(keys).size).toBe(1000);
    for (const key of keys) expect(parsePhysicalKey(key)).toBe(key);
  });

  test.each(["", "..", "0".repeat(31), "0".repeat(33), "A".repeat(32), `${"0".repeat(31)}/`, `${"0".repeat(32)}\n`])(
    "%j is none",
    (text) => {
      expect(() => parsePhysicalKey(text)).toThrow(expect.objectContaining({ code: "INPUT_INVALID" }));
    },
  );
});

/** A driver of which single methods can be replaced. */
class WrappedDriver implements ObjectDriver {
  readonly name = "db";
  readonly inner: ObjectDriver;
  readonly capabilities: ObjectDriver["capabilities"];
  purge: ObjectDriver["purge"];
  purgeMany?: NonNullable<ObjectDriver["purgeMany"]>;
  put: ObjectDriver["put"];
  get: ObjectDriver["get"];
  delete: ObjectDriver["delete"];
  list: ObjectDriver["list"];
  listForeign: ObjectDriver["listForeign"];

  constructor(inner: ObjectDriver, changed: Partial<DriverCapabilities> = {}) {
    this.inner = inner;
    this.capabilities = async (under) => ({ ...(await inner.capabilities(under)), ...changed });
    this.purge = (key, sizeBytes, under) => inner.purge(key, sizeBytes, under);
    this.put = async (key, body, under) => {
      const { digest, ...stored } = await inner.put(key, body, under);
      return { ...stored, ...(changed.serverDigest === false || digest === undefined ? {} : { digest }) };
    };
    this.get = (key, range, under) => inner.get(key, range, under);
    this.delete = (key, under) => inner.delete(key, under);
    this.list = (after, under) => inner.list(after, under);
    this.listForeign = (under) => inner.listForeign(under);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}

function database() {
  return opened.database;
}

interface OpenOptions extends Partial<Omit<ObjectStoreOptions, "database" | "sections">> {
  readonly driver?: ObjectDriver;
  readonly settings?: Readonly<Record<string, string>>;
}

function open({ driver = new DatabaseDriver(database()), settings = {}, ...options }: OpenOptions = {}) {
  return openObjectStore({ database: database(), sections: sectionsOf(driver, settings), ...options });
}

async function put(store: ObjectStore, to: ObjectRef, bytes: Buffer) {
  const [version] = await publish(store, [await store.stage(to, bodyOf(bytes), call)]);
  if (!version) throw new Error("nothing was published");
  return version;
}

function publish(store: ObjectStore, staged: readonly StagedObject[]) {
  return database().transaction((tx) => store.publish(tx, staged), call);
}

async function read(store: ObjectStore, from: ObjectRef): Promise<Buffer> {
  return buffer((await store.get(from, call)).body);
}

function reap(store: ObjectStore) {
  return store.reap(100, call);
}

function bodyOf(content: Buffer | string): BodySource {
  const bytes = Buffer.from(content as string);
  return { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
}

// biome-ignore lint/correctness/useYield: it fails before
async function* failing(error: Error): AsyncGenerator<Buffer> {
  throw error;
}

/** A put whose writer died before anything was proven, its lease over. */
async function abandonedPut(store: ObjectStore): Promise<{ locationId: number; physicalKey: PhysicalKey }> {
  const body = { open: async () => Readable.from(failing(new RangeError("dead"))) };
  await expect(store.stage(ref, body, call)).rejects.toThrow("dead");
  await endLeases();
  const row = await database().sql.selectFrom("locations").select(["id", "physical_key"]).executeTakeFirstOrThrow();
  return { locationId: row.id, physicalKey: parsePhysicalKey(row.physical_key) };
}

async function endLeases(staged?: StagedObject): Promise<void> {
  await sql`update locations set lease_until = now() - interval '1 second'
    where state = 'pending' and id = coalesce(${staged?.locationId ?? null}, id)`.execute(database().sql);
}

/** Since `seconds` the location is in its state. */
async function age(id: number, seconds: number): Promise<void> {
  await sql`update locations set state_since = now() - make_interval(secs => ${seconds}) where id = ${id}`.execute(
    database().sql,
  );
}

async function databaseTime(laterSeconds: number): Promise<number> {
  const { rows } = await sql<{ at: string }>`
    select extract(epoch from clock_timestamp())::text as at`.execute(database().sql);
  return Number(rows[0]?.at) + laterSeconds;
}

async function states(): Promise<LocationState[]> {
  const rows = await database().sql.selectFrom("locations").select("state").orderBy("id").execute();
  return rows.map(({ state }) => state);
}

async function stateOf(id: number): Promise<LocationState | undefined> {
  const row = await database().sql.selectFrom("locations").select("state").where("id", "=", id).executeTakeFirst();
  return row?.state;
}

async function blobCount(): Promise<number> {
  return (await database().sql.selectFrom("object_blobs").select("physical_key").execute()).length;
}

async function danglingPointers(): Promise<number> {
  const { rows } = await sql`
    select 1 from objects o join locations l on l.id = o.location_id where l.state <> 'live'`.execute(database().sql);
  return rows.length;
}

/** Blobs without a location: what nobody would ever delete. */
async function orphanBlobs(): Promise<string[]> {
  const { rows } = await sql<{ physical_key: string }>`
    select physical_key from object_blobs b
    where not exists (select 1 from locations l where l.physical_key = b.physical_key)`.execute(database().sql);
  return rows.map(({ physical_key }) => physical_key);
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
