import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { StowageError } from "../../src/errors/index.ts";
import type {
  BodySource,
  ByteRange,
  DriverCapabilities,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "../../src/objects/index.ts";
import { createPhysicalKey } from "../../src/objects/index.ts";
import { createCall, defaultRetryPolicy, retry } from "../../src/runtime/index.ts";
import { failureOf } from "./failure.ts";

/** A driver under test with its backend, which nobody else uses. */
export interface DriverUnderTest extends AsyncDisposable {
  readonly driver: ObjectDriver;
  /** In pieces of this size the driver stores bytes; cases lie around its multiples. */
  readonly chunkBytes: number;
  /** For so many blobs the backend needs more than one answer to list them; 2100 where it is not said. */
  readonly severalPages?: number;
  /** What lies at the backend, whether the driver's listing shows it or not. */
  remains(): Promise<readonly string[]>;
  /**
   * Puts there, past the driver, what is nothing of its own, beside what a put of `unfinished` would have left, where such a thing can be; returns what
   * takes it away. At least one of them has a name that is nearly a blob's.
   */
  litter(unfinished: PhysicalKey): Promise<Litter>;
}

/** What was put at a backend past its driver. */
export interface Litter extends AsyncDisposable {
  readonly foreign: readonly ForeignBlob[];
}

const call = createCall();

/** What every driver has to do. Each case must leave an empty backend behind once the blobs that were stored have been deleted. */
export function describeDriver(name: string, makeDriver: () => Promise<DriverUnderTest>): void {
  describe(name, () => {
    let backend: DriverUnderTest;
    let driver: ObjectDriver;
    let capabilities: DriverCapabilities;
    let stored: PhysicalKey[] = [];

    beforeAll(async () => {
      backend = await makeDriver();
      driver = backend.driver;
      capabilities = await driver.capabilities(call);
    });
    afterEach(async () => {
      for (const key of stored) await driver.delete(key, call);
      stored = [];
      expect(await listed()).toEqual([]);
      expect(await backend.remains()).toEqual([]);
    });
    afterAll(() => backend?.[Symbol.asyncDispose]());

    /** Stores a blob that the end of the case deletes. */
    async function put(body: Buffer | BodySource, key = createPhysicalKey(), under = call): Promise<StoredBlob> {
      const blob = await driver.put(key, Buffer.isBuffer(body) ? bodyOf(body) : body, under);
      stored.push(key);
      return blob;
    }

    async function get(key: PhysicalKey, range?: ByteRange): Promise<Buffer> {
      return buffer(await driver.get(key, range, call));
    }

    async function listed(after?: PhysicalKey): Promise<StoredBlob[]> {
      const blobs: StoredBlob[] = [];
      for await (const blob of driver.list(after, call)) blobs.push(blob);
      return blobs;
    }

    /** A put that has to fail and to leave nothing, neither bytes nor a claim on its key. */
    async function failingPut(body: BodySource, under = call): Promise<{ key: PhysicalKey; error: unknown }> {
      const key = createPhysicalKey();
      const error = await driver.put(key, body, under).then(
        () => expect.fail("the put succeeded"),
        (reason: unknown) => reason,
      );
      expect(await backend.remains()).toEqual([]);
      expect(await failureOf(driver.get(key, undefined, call))).toMatchObject({ code: "BACKEND_KEY_MISSING" });
      await put(Buffer.from("the key is still free"), key);
      return { key, error };
    }

    describe("put and get", () => {
      const sizes: readonly (readonly [string, (chunk: number) => number])[] = [
        ["an empty body", () => 0],
        ["one byte", () => 1],
        ["a chunk less one byte", (chunk) => chunk - 1],
        ["a chunk", (chunk) => chunk],
        ["a chunk and one byte", (chunk) => chunk + 1],
        ["three chunks less one byte", (chunk) => 3 * chunk - 1],
        ["three chunks", (chunk) => 3 * chunk],
        ["three chunks and one byte", (chunk) => 3 * chunk + 1],
        ["sixteen chunks less one byte", (chunk) => 16 * chunk - 1],
        ["sixteen chunks", (chunk) => 16 * chunk],
        ["sixteen chunks and one byte", (chunk) => 16 * chunk + 1],
        ["20 MB", () => 20_000_000],
      ];
      test.each(sizes)("%s", async (_, sizeOf) => {
        const bytes = noise(sizeOf(backend.chunkBytes));
        const blob = await put(bytes);
        expect(blob.sizeBytes).toBe(bytes.length);
        expect((await get(blob.key)).equals(bytes)).toBe(true);
      });

      test.each([
        ["single bytes", 1, 1000],
        ["pieces that fit nothing", 7919, 600_000],
        ["pieces larger than a chunk", 1_500_001, 4_000_000],
      ])("a body in %s", async (_, pieceBytes, sizeBytes) => {
        const bytes = noise(sizeBytes);
        const { key } = await put({ open: async () => Readable.from(pieces(bytes, pieceBytes)) });
        expect((await get(key)).equals(bytes)).toBe(true);
      });

      test.each(sizes.slice(0, 5))("%s that is in memory, with its digest and without", async (_, sizeOf) => {
        const bytes = noise(sizeOf(Math.min(backend.chunkBytes, 1_000_000)));
        const body = { open: async () => Readable.from([bytes]), sizeBytes: bytes.length, bytes };
        for (const each of [body, { ...body, sha256: createHash("sha256").update(bytes).digest() }]) {
          const blob = await put(each);
          expect(blob.sizeBytes).toBe(bytes.length);
          expect([undefined, sha256(bytes)]).toContain(blob.digest);
          expect((await get(blob.key)).equals(bytes)).toBe(true);
          if (!capabilities.exclusivePut) continue;
          const other = Buffer.from("other bytes");
          const taken = { open: async () => Readable.from([other]), sizeBytes: other.length, bytes: other };
          expect((await failureOf(driver.put(blob.key, taken, call))).code).toBe("BACKEND_KEY_EXISTS");
          expect((await get(blob.key)).equals(bytes)).toBe(true);
        }
      });

      test("a body in memory whose call was aborted", async () => {
        const bytes = Buffer.from("never stored");
        const aborted = createCall({ signal: AbortSignal.abort() });
        const body = { open: async () => Readable.from([bytes]), sizeBytes: bytes.length, bytes };
        expect((await failingPut(body, aborted)).error).toMatchObject({ code: "INPUT_INTERRUPTED" });
      });

      test("a body with empty pieces", async () => {
        const body = { open: async () => Readable.from([Buffer.alloc(0), Buffer.from("a"), Buffer.alloc(0)]) };
        expect(await get((await put(body)).key)).toEqual(Buffer.from("a"));
      });

      test("a body of unknown size", async () => {
        const bytes = noise(backend.chunkBytes * 2 + 5);
        const blob = await put({ open: async () => Readable.from([bytes]) });
        expect(blob.sizeBytes).toBe(bytes.length);
        expect((await get(blob.key)).equals(bytes)).toBe(true);
      });

      test("bytes of every value", async () => {
        const bytes = Buffer.from(Array.from({ length: 256 }, (_, value) => value));
        expect(await get((await put(bytes)).key)).toEqual(bytes);
      });

      test("the same bytes under two keys are two blobs", async () => {
        const bytes = noise(1000);
        const one = await put(bytes);
        const other = await put(bytes);
        await driver.delete(one.key, call);
        expect(await get(other.key)).toEqual(bytes);
      });

      test("the digest it reports is the content's", async () => {
        if (!capabilities.serverDigest) return;
        const bytes = noise(backend.chunkBytes + 11);
        expect((await put(bytes)).digest).toBe(sha256(bytes));
        expect((await put(Buffer.alloc(0))).digest).toBe(sha256(Buffer.alloc(0)));
      });

      test("what was stored does not follow the caller's buffer", async () => {
        const bytes = Buffer.from("first");
        const { key } = await put(bytes);
        bytes.fill("x");
        expect(await get(key)).toEqual(Buffer.from("first"));
      });

      test("many puts and gets at once", async () => {
        const bodies = Array.from({ length: 24 }, (_, index) => noise(1 + index * 40_000));
        const blobs = await Promise.all(bodies.map((bytes) => put(bytes)));
        const read = await Promise.all(blobs.map(({ key }) => get(key)));
        for (const [index, bytes] of bodies.entries()) expect(read[index]?.equals(bytes)).toBe(true);
      });

      test("bodies that wait for each other, more than the backend has connections", async () => {
        // A body may be read from the same backend while it is written: whoever holds a connection meanwhile ends in a deadlock.
        const count = 30;
        const bytes = noise(backend.chunkBytes);
        let waiting = 0;
        const allWait = Promise.withResolvers<void>();
        const body = async function* () {
          for (let piece = 0; piece < 6; piece++) yield bytes;
          if (++waiting === count) allWait.resolve();
          await allWait.promise;
          yield bytes;
        };
        const blobs = await Promise.all(
          Array.from({ length: count }, () => put({ open: async () => Readable.from(body()) })),
        );
        for (const { sizeBytes } of blobs) expect(sizeBytes).toBe(7 * bytes.length);
      });

      test("many readers of one blob", async () => {
        const bytes = noise(backend.chunkBytes * 3);
        const { key } = await put(bytes);
        for (const read of await Promise.all(Array.from({ length: 12 }, () => get(key)))) {
          expect(read.equals(bytes)).toBe(true);
        }
      });

      test("more open streams than the backend has connections", async () => {
        const bytes = noise(backend.chunkBytes * 2);
        const { key } = await put(bytes);
        const open = await Promise.all(Array.from({ length: 30 }, () => driver.get(key, undefined, call)));
        for (const stream of open) expect((await buffer(stream)).equals(bytes)).toBe(true);
      });
    });

    describe("ranges", () => {
      // In units of a chunk: factor and offset of the first byte, the same of the last.
      const ranges: readonly (readonly [string, readonly [number, number], readonly [number, number]])[] = [
        ["the first byte", [0, 0], [0, 0]],
        ["the last byte", [3, 9], [3, 9]],
        ["inside of a chunk", [1, 10], [1, 20]],
        ["exactly a chunk", [1, 0], [2, -1]],
        ["the last byte of a chunk", [1, -1], [1, -1]],
        ["the first byte of a chunk", [2, 0], [2, 0]],
        ["across a border", [1, -1], [1, 0]],
        ["across two borders", [1, -5], [2, 5]],
        ["everything", [0, 0], [3, 9]],
        ["from the middle to past the end", [2, 3], [9, 0]],
        ["across the end", [3, 9], [3, 10]],
        ["just past the end", [3, 10], [3, 20]],
        ["far past the end", [50, 0], [60, 0]],
      ];
      test.each(ranges)("%s", async (_, [firstFactor, firstOffset], [lastFactor, lastOffset]) => {
        const chunk = backend.chunkBytes;
        const bytes = noise(3 * chunk + 10);
        const { key } = await put(bytes);
        const range = { first: firstFactor * chunk + firstOffset, last: lastFactor * chunk + lastOffset };
        const read = await get(key, range);
        expect(read.length).toBe(bytes.subarray(range.first, range.last + 1).length);
        expect(read.equals(bytes.subarray(range.first, range.last + 1))).toBe(true);
      });

      test("of an empty blob", async () => {
        const { key } = await put(Buffer.alloc(0));
        expect(await get(key, { first: 0, last: 99 })).toEqual(Buffer.alloc(0));
      });
    });

    describe("missing keys", () => {
      test("get fails before the first byte", async () => {
        const error = await failureOf(driver.get(createPhysicalKey(), undefined, call));
        expect(error).toMatchObject({ code: "BACKEND_KEY_MISSING", details: { driver: driver.name } });
      });

      test("get of a range fails before the first byte", async () => {
        const error = await failureOf(driver.get(createPhysicalKey(), { first: 5, last: 9 }, call));
        expect(error.code).toBe("BACKEND_KEY_MISSING");
      });

      test("delete of what is not there succeeds", async () => {
        await driver.delete(createPhysicalKey(), call);
      });
    });

    describe("delete", () => {
      test("takes all of the blob", async () => {
        const { key } = await put(noise(backend.chunkBytes * 2 + 1));
        await driver.delete(key, call);
        expect(await backend.remains()).toEqual([]);
        expect((await failureOf(driver.get(key, undefined, call))).code).toBe("BACKEND_KEY_MISSING");
        await driver.delete(key, call);
      });

      test("twice at once", async () => {
        const { key } = await put(noise(1000));
        await Promise.all([driver.delete(key, call), driver.delete(key, call)]);
      });

      test("leaves the others alone", async () => {
        const one = await put(noise(100));
        const bytes = noise(200);
        const other = await put(bytes);
        await driver.delete(one.key, call);
        expect(await get(other.key)).toEqual(bytes);
      });

      test("under a writer: a whole blob or none", async () => {
        const key = createPhysicalKey();
        const bytes = noise(backend.chunkBytes * 20);
        const body = async function* () {
          yield* pieces(bytes.subarray(0, backend.chunkBytes * 12), backend.chunkBytes);
          await driver.delete(key, call);
          yield* pieces(bytes.subarray(backend.chunkBytes * 12), backend.chunkBytes);
        };
        const [result] = await Promise.allSettled([put({ open: async () => unhurried(body()) }, key)]);
        if (result?.status === "fulfilled") expect((await get(key)).equals(bytes)).toBe(true);
        else expect(await backend.remains()).toEqual([]);
      });

      test("under a reader: the rest of the bytes or a failure, never a short stream", async () => {
        const bytes = noise(backend.chunkBytes * 8);
        const { key } = await put(bytes);
        const stream = await driver.get(key, undefined, call);
        const parts: Buffer[] = [];
        let failure: unknown;
        try {
          for await (const part of stream) {
            if (parts.length === 0) await driver.delete(key, call);
            parts.push(part as Buffer);
          }
        } catch (error) {
          failure = error;
        }
        if (failure === undefined) expect(Buffer.concat(parts).equals(bytes)).toBe(true);
        else expect(failure).toMatchObject({ code: "BACKEND_KEY_MISSING" });
      });
    });

    describe("what is nothing of the driver's", () => {
      async function foreign(): Promise<readonly ForeignBlob[]> {
        const found: ForeignBlob[] = [];
        for await (const page of driver.listForeign(call)) found.push(...page);
        return found.toSorted((one, other) => (one.name < other.name ? -1 : 1));
      }

      test("whole blobs, long and short, are not", async () => {
        for (const sizeBytes of [0, 1, 20 * backend.chunkBytes + 1]) await put(noise(sizeBytes));
        expect(await foreign()).toEqual([]);
      });

      test("is listed with names and sizes, apart from blobs, and stays", async () => {
        const { key } = await put(noise(20 * backend.chunkBytes + 1));
        const before = await listed();
        {
          await using litter = await backend.litter(createPhysicalKey());
          const expected = litter.foreign.toSorted((one, other) => (one.name < other.name ? -1 : 1));
          expect(expected.length).toBeGreaterThan(0);
          expect(await foreign()).toEqual(expected);
          expect(await listed()).toEqual(before);
          await driver.purge(key, undefined, call);
          expect(await foreign()).toEqual(expected);
        }
        expect(await foreign()).toEqual([]);
      });

      test("a listing whose call was aborted fails", async () => {
        const pages = driver.listForeign(createCall({ signal: AbortSignal.abort() }))[Symbol.asyncIterator]();
        expect((await failureOf(pages.next())).code).toBe("INPUT_INTERRUPTED");
      });
    });

    describe("exclusive put", () => {
      test("onto an existing key is refused and changes nothing", async () => {
        if (!capabilities.exclusivePut) return;
        const { key } = await put(Buffer.from("first"));
        expect(await failureOf(driver.put(key, bodyOf(Buffer.from("second")), call))).toMatchObject({
          code: "BACKEND_KEY_EXISTS",
          details: { key },
        });
        expect(await get(key)).toEqual(Buffer.from("first"));
      });

      test("onto an existing empty blob is refused", async () => {
        if (!capabilities.exclusivePut) return;
        const { key } = await put(Buffer.alloc(0));
        expect((await failureOf(driver.put(key, bodyOf(Buffer.from("x")), call))).code).toBe("BACKEND_KEY_EXISTS");
        expect(await get(key)).toEqual(Buffer.alloc(0));
      });

      test.each([1, 20])(
        "one of several bodies of %i chunks that race wins, and its bytes are there",
        async (chunks) => {
          if (!capabilities.exclusivePut) return;
          const key = createPhysicalKey();
          const bodies = Array.from({ length: 6 }, () => noise(backend.chunkBytes * chunks + 100));
          const results = await Promise.allSettled(bodies.map((bytes) => put(bytes, key)));
          const winners = results.flatMap(({ status }, index) => (status === "fulfilled" ? [index] : []));
          expect(winners).toHaveLength(1);
          for (const result of results) {
            if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "BACKEND_KEY_EXISTS" });
          }
          expect((await get(key)).equals(bodies[winners[0] ?? -1] as Buffer)).toBe(true);
        },
      );

      test("the winner of a race fails: the other's bytes are there", async () => {
        if (!capabilities.exclusivePut) return;
        const key = createPhysicalKey();
        const gate = Promise.withResolvers<void>();
        const opened = Promise.withResolvers<void>();
        const dying = driver.put(
          key,
          {
            open: async () => {
              opened.resolve();
              return Readable.from(thenFails(noise(10), gate.promise));
            },
          },
          call,
        );
        const failed = expect(dying).rejects.toThrow("the body's own failure");
        await opened.promise;
        const bytes = noise(500);
        const other = put(bytes, key);
        gate.resolve();
        await failed;
        await other;
        expect(await get(key)).toEqual(bytes);
      });

      test("a large body and an empty one race: one wins, and its bytes are there", async () => {
        if (!capabilities.exclusivePut) return;
        const key = createPhysicalKey();
        const bytes = noise(backend.chunkBytes * 20);
        let other: Promise<PromiseSettledResult<StoredBlob>[]> | undefined;
        const body = async function* () {
          yield bytes.subarray(0, backend.chunkBytes * 18);
          other = Promise.allSettled([put(Buffer.alloc(0), key)]);
          yield bytes.subarray(backend.chunkBytes * 18);
        };
        const [large] = await Promise.allSettled([put({ open: async () => Readable.from(body()) }, key)]);
        const [empty] = (await other) ?? [];
        expect([large?.status, empty?.status].filter((status) => status === "fulfilled")).toHaveLength(1);
        expect((await get(key)).equals(large?.status === "fulfilled" ? bytes : Buffer.alloc(0))).toBe(true);
      });

      test("a key can be used again once it was deleted", async () => {
        const { key } = await put(Buffer.from("first"));
        await driver.delete(key, call);
        await put(Buffer.from("second"), key);
        expect(await get(key)).toEqual(Buffer.from("second"));
      });
    });

    describe("failed puts leave nothing", () => {
      test("a body that fails at once", async () => {
        const { error } = await failingPut({ open: async () => Readable.from(thenFails(Buffer.alloc(0))) });
        expect(String(error)).toContain("the body's own failure");
      });

      test("a body that fails midway", async () => {
        const bytes = noise(backend.chunkBytes * 2 + 17);
        const { error } = await failingPut({ open: async () => Readable.from(thenFails(bytes)) });
        expect(String(error)).toContain("the body's own failure");
      });

      test("a large body that fails midway", async () => {
        const bytes = noise(backend.chunkBytes);
        const body = async function* () {
          for (let chunk = 0; chunk < 20; chunk++) yield bytes;
          throw new RangeError("the body's own failure");
        };
        const { error } = await failingPut({ open: async () => unhurried(body()) });
        expect(String(error)).toContain("the body's own failure");
      });

      test("a body that can't be opened", async () => {
        const reason = new StowageError("BACKEND_FAILED", { driver: "test", operation: "open" });
        const { error } = await failingPut({
          open: async () => {
            throw reason;
          },
        });
        expect(error).toBe(reason);
      });

      test("a body that is destroyed without an error", async () => {
        const open = async () => {
          const stream = Readable.from(pieces(noise(backend.chunkBytes * 3), 1000));
          stream.once("data", () => stream.destroy());
          stream.pause();
          return stream;
        };
        await failingPut({ open });
      });

      test.each([
        ["shorter than announced, by a byte", -1],
        ["longer than announced, by a byte", 1],
        ["empty though bytes were announced", -600_000],
        ["much longer than announced", 5_000_000],
      ])("a body %s", async (_, more) => {
        const sizeBytes = 600_000;
        const { error } = await failingPut({ ...bodyOf(noise(sizeBytes + more)), sizeBytes });
        expect(error).toMatchObject({ code: "BACKEND_FAILED" });
      });

      test("bytes where none were announced", async () => {
        const { error } = await failingPut({ ...bodyOf(noise(1)), sizeBytes: 0 });
        expect(error).toMatchObject({ code: "BACKEND_FAILED" });
      });

      test("an endless body longer than announced", async () => {
        const endless = async function* () {
          for (;;) yield Buffer.alloc(100_000);
        };
        const { error } = await failingPut({ open: async () => Readable.from(endless()), sizeBytes: 1_000_000 });
        expect(error).toMatchObject({ code: "BACKEND_FAILED" });
      });

      test("aborted before it began", async () => {
        const { error } = await failingPut(bodyOf(noise(10)), createCall({ signal: AbortSignal.abort() }));
        expect(error).toMatchObject({ code: "INPUT_INTERRUPTED" });
      });

      test.each([2, 20])("aborted after %i chunks", async (chunks) => {
        const abort = new AbortController();
        const bytes = noise(backend.chunkBytes);
        const body = async function* () {
          for (let chunk = 0; chunk < chunks; chunk++) yield bytes;
          abort.abort();
          yield bytes;
        };
        const stream = unhurried(body());
        const { error } = await failingPut({ open: async () => stream }, createCall({ signal: abort.signal }));
        expect(error).toMatchObject({ code: "INPUT_INTERRUPTED" });
        expect(stream.destroyed).toBe(true);
      });

      test("aborted while the body has stalled", async () => {
        const abort = new AbortController();
        const stalled = new Readable({
          read() {
            this.push(noise(10));
            setImmediate(() => abort.abort(new StowageError("OBJECT_LEASE_LOST", { bucket: "b", key: "k" })));
            this._read = () => {};
          },
        });
        const { error } = await failingPut({ open: async () => stalled }, createCall({ signal: abort.signal }));
        expect(error).toMatchObject({ code: "OBJECT_LEASE_LOST" });
        expect(stalled.destroyed).toBe(true);
      });
    });

    describe("purge", () => {
      test("takes a whole blob, and succeeds where nothing is", async () => {
        const { key } = await put(noise(backend.chunkBytes * 2));
        await driver.purge(key, undefined, call);
        expect(await backend.remains()).toEqual([]);
        await driver.purge(key, undefined, call);
      });

      test("under a writer of many chunks: what it leaves when it fails is taken, now or by a second purge", async () => {
        const key = createPhysicalKey();
        const bytes = noise(backend.chunkBytes);
        const body = async function* () {
          for (let chunk = 0; chunk < 18; chunk++) yield bytes;
          await driver.purge(key, undefined, call);
          yield bytes;
        };
        const [result] = await Promise.allSettled([driver.put(key, { open: async () => unhurried(body()) }, call)]);
        if (result?.status === "fulfilled") expect((await get(key)).length).toBe(bytes.length * 19);
        await driver.purge(key, undefined, call);
        expect(await backend.remains()).toEqual([]);
      });
    });

    describe("many at once", () => {
      const aborted = createCall({ signal: AbortSignal.abort() });

      test("what is read is whole, and what is left out can be had alone", async () => {
        if (driver.getMany === undefined) return;
        const chunk = backend.chunkBytes;
        const bodies = [0, 1, 1000, 30_000, chunk - 1, chunk, chunk + 1, 3 * chunk].map(noise);
        const keys: PhysicalKey[] = [];
        for (const bytes of bodies) keys.push((await put(bytes)).key);
        const missing = createPhysicalKey();
        const found = await driver.getMany([missing, ...keys, keys[1] as PhysicalKey], call);
        expect(found.has(missing)).toBe(false);
        for (const [key, bytes] of found) expect(bytes.equals(bodies[keys.indexOf(key)] as Buffer)).toBe(true);
        for (const [index, key] of keys.entries()) expect((await get(key)).equals(bodies[index] as Buffer)).toBe(true);
        // It would be of no use otherwise.
        expect(found.has(keys[2] as PhysicalKey) && found.has(keys[3] as PhysicalKey)).toBe(true);
        expect((await driver.getMany([], call)).size).toBe(0);
        expect((await failureOf(driver.getMany(keys, aborted))).code).toBe("INPUT_INTERRUPTED");
      });

      test("what is purged is gone, all of it, and nothing else is", async () => {
        if (driver.purgeMany === undefined) return;
        const bodies = [0, 1, 1000, backend.chunkBytes, 3 * backend.chunkBytes].map(noise);
        const blobs: { key: PhysicalKey; sizeBytes: number | undefined }[] = [];
        for (const bytes of bodies) blobs.push({ key: (await put(bytes)).key, sizeBytes: bytes.length });
        blobs.push({ key: createPhysicalKey(), sizeBytes: undefined }, { key: createPhysicalKey(), sizeBytes: 10 });
        const other = await put(noise(500));
        expect((await failureOf(driver.purgeMany(blobs, aborted))).code).toBe("INPUT_INTERRUPTED");
        for (let time = 0; time < 2; time++) {
          const gone = await driver.purgeMany(blobs, call);
          expect(gone.has(blobs[2]?.key as PhysicalKey)).toBe(true);
          for (const { key, sizeBytes } of blobs) {
            if (!gone.has(key)) await driver.purge(key, sizeBytes, call);
            expect((await failureOf(driver.get(key, undefined, call))).code).toBe("BACKEND_KEY_MISSING");
          }
          expect((await listed()).map(({ key }) => key)).toEqual([other.key]);
        }
        expect((await driver.purgeMany([], call)).size).toBe(0);
        await driver.purge(other.key, undefined, call);
        expect(await backend.remains()).toEqual([]);
      });

      test("two who purge the same in other orders, beside writers", async () => {
        if (driver.purgeMany === undefined) return;
        const blobs = [];
        for (let index = 0; index < 20; index++) blobs.push({ key: (await put(noise(1000))).key, sizeBytes: 1000 });
        // As the guard would: a server of files may take away a directory that it finds empty while another writes into it.
        const write = (bytes: Buffer) => retry(() => put(bytes), defaultRetryPolicy, call);
        const [one, another] = await Promise.all([
          driver.purgeMany(blobs, call),
          driver.purgeMany(blobs.toReversed(), call),
          write(noise(1000)),
          write(noise(backend.chunkBytes * 2)),
        ]);
        for (const { key } of blobs) expect(one.has(key) || another.has(key)).toBe(true);
        expect(await listed()).toHaveLength(2);
      });
    });

    describe("readers that stop early free everything", () => {
      test("destroyed before the first byte", async () => {
        const { key } = await put(noise(backend.chunkBytes * 3));
        for (let round = 0; round < 40; round++) {
          const stream = await driver.get(key, undefined, call);
          stream.destroy();
        }
        expect((await get(key)).length).toBe(backend.chunkBytes * 3);
      });

      test("left after the first piece", async () => {
        const { key } = await put(noise(backend.chunkBytes * 3));
        for (let round = 0; round < 40; round++) {
          const stream = await driver.get(key, undefined, call);
          for await (const piece of stream) {
            expect((piece as Buffer).length).toBeGreaterThan(0);
            break;
          }
          expect(stream.destroyed).toBe(true);
        }
        expect((await get(key)).length).toBe(backend.chunkBytes * 3);
      });

      test("an aborted call ends its stream with a failure", async () => {
        const { key } = await put(noise(backend.chunkBytes * 8));
        const abort = new AbortController();
        const stream = await driver.get(key, undefined, createCall({ signal: abort.signal }));
        const reading = (async () => {
          for await (const _ of stream) abort.abort();
        })();
        expect(await failureOf(reading)).toMatchObject({ code: "INPUT_INTERRUPTED" });
      });
    });

    describe("list", () => {
      test("keys in order with their sizes", async () => {
        const blobs: StoredBlob[] = [];
        for (let index = 0; index < 20; index++) blobs.push(await put(noise(index)));
        const expected = blobs.map(({ key, sizeBytes }) => ({ key, sizeBytes })).sort(byKey);
        expect((await listed()).map(({ key, sizeBytes }) => ({ key, sizeBytes }))).toEqual(expected);
      });

      test("after a key, and after one that is not there", async () => {
        for (let index = 0; index < 6; index++) await put(noise(1));
        const all = await listed();
        expect(await listed(all[2]?.key)).toEqual(all.slice(3));
        expect(await listed(all[5]?.key)).toEqual([]);
        expect(await listed(`${"0".repeat(31)}!` as PhysicalKey)).toEqual(all);
      });

      test("more blobs than one answer of a backend has", async () => {
        const keys = Array.from({ length: backend.severalPages ?? 2100 }, () => createPhysicalKey());
        for (let at = 0; at < keys.length; at += 100) {
          await Promise.all(keys.slice(at, at + 100).map((key) => put(Buffer.alloc(0), key)));
        }
        expect((await listed()).map(({ key }) => key)).toEqual(keys.toSorted());
      });

      test("can be left early", async () => {
        await put(noise(1));
        await put(noise(2));
        for await (const blob of driver.list(undefined, call)) {
          expect(blob.sizeBytes).toBeGreaterThan(0);
          break;
        }
      });

      test("does not show what failed", async () => {
        await failingPut({ open: async () => Readable.from(thenFails(noise(10))) });
        expect(await listed()).toHaveLength(1);
      });
    });
  });
}

function bodyOf(bytes: Buffer): BodySource {
  return { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
}

/** Bytes that no compression makes smaller, the same in each run. */
function noise(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  noiseSeed = (noiseSeed + 1) | 0;
  let state = noiseSeed * 2654435761;
  let at = 0;
  for (; at + 4 <= sizeBytes; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, at);
  }
  for (; at < sizeBytes; at++) bytes[at] = state >>> (8 * (at & 3));
  return bytes;
}
let noiseSeed = 0;

function* pieces(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** A stream that asks for the next piece when one is taken, not for many at once: what the body does midway, it does midway. */
function unhurried(body: AsyncIterable<Buffer>): Readable {
  return Readable.from(body, { highWaterMark: 1 });
}

async function* thenFails(bytes: Buffer, when: Promise<void> = Promise.resolve()): AsyncGenerator<Buffer> {
  if (bytes.length > 0) yield bytes;
  await when;
  throw new Error("the body's own failure");
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function byKey(one: { key: string }, other: { key: string }): number {
  return one.key < other.key ? -1 : 1;
}
