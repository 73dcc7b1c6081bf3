import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { describeDriver } from "../../test/conformance/driver-suite.ts";
import { failureOf } from "../../test/conformance/failure.ts";
import { FaultyDriver, type PlannedFault, plannedFaults, randomFaults } from "../../test/fault/faulty-driver.ts";
import { ManualClock, settle } from "../../test/fault/manual-clock.ts";
import { MemoryDriver } from "../../test/fault/memory-driver.ts";
import { createRandom } from "../../test/fault/random.ts";
import { StowageError } from "../errors/index.ts";
import { type Call, createCall, defaultRetryPolicy } from "../runtime/index.ts";
import {
  type BodySource,
  type ByteRange,
  type ObjectDriver,
  type PhysicalKey,
  type StoredBlob,
  WholeBody,
} from "./driver.ts";
import { type GuardedDriver, type GuardOptions, guard } from "./guarded-driver.ts";
import { createPhysicalKey } from "./physical-key.ts";

const call = createCall();
const bytes = createRandom(1).bytes(10_000);
const stallMs = 1000;

describeDriver("a guarded driver", async () => {
  const driver = new MemoryDriver();
  return {
    driver: guard(driver, { operationsMax: 4, lendAfterMs: 20 }),
    chunkBytes: 64 * 1024,
    remains: async () => [...driver.blobs.keys()],
    async litter(partOf) {
      driver.foreign.push({ name: "other", sizeBytes: 3 }, { name: "part", sizeBytes: 2, partOf });
      return { foreign: [...driver.foreign], [Symbol.asyncDispose]: async () => void driver.foreign.splice(0) };
    },
    [Symbol.asyncDispose]: async () => {},
  };
});

interface Guarded {
  readonly driver: GuardedDriver;
  readonly clock: ManualClock;
}

function guarded(inner: ObjectDriver, options: GuardOptions = {}): Guarded {
  const clock = new ManualClock();
  const policy = { ...defaultRetryPolicy, attemptsMax: 3, firstDelayMs: 100, random: () => 0, ...options.retry, clock };
  return { driver: guard(inner, { stallMs, ...options, retry: policy }), clock };
}

/** A memory driver that holds `bytes` under a key, and what is planned goes wrong with it. */
function faulty(plan: readonly PlannedFault[], options: GuardOptions = {}) {
  const memory = new MemoryDriver();
  const key = createPhysicalKey();
  memory.blobs.set(key, bytes);
  const injected = new FaultyDriver(memory, plannedFaults(plan));
  return { ...guarded(injected, options), memory, key, injected };
}

function without(
  driver: MemoryDriver,
  changes: { [Name in keyof ObjectDriver]?: ObjectDriver[Name] | undefined },
): ObjectDriver {
  return Object.assign(Object.create(driver), changes);
}

function bodyOf(content: Buffer): BodySource & { opened: number } {
  const body = {
    opened: 0,
    sizeBytes: content.length,
    open: async () => {
      body.opened++;
      return Readable.from([content]);
    },
  };
  return body;
}

const never = () => new Promise<never>(() => {});

describe("errors say what they are about", () => {
  test("an unknown error becomes BACKEND_FAILED with its cause", async () => {
    const cause = new TypeError("socket hang up");
    const { driver, clock } = guarded(without(new MemoryDriver(), { get: () => Promise.reject(cause) }));
    const key = createPhysicalKey();
    const error = await failureOf(clock.runUntil(driver.get(key, undefined, call)));
    expect(error).toMatchObject({
      code: "BACKEND_FAILED",
      cause,
      details: { driver: "memory", operation: "get", key, reason: "socket hang up" },
    });
  });

  test("a driver's own error keeps code, hint and details, and gets what it lacks", async () => {
    const refusal = new StowageError(
      "BACKEND_DENIED",
      { driver: "other", operation: "unlink" },
      { hint: "ask for it" },
    );
    const { driver } = guarded(without(new MemoryDriver(), { delete: () => Promise.reject(refusal) }));
    const key = createPhysicalKey();
    const error = await failureOf(driver.delete(key, call));
    expect(error).toMatchObject({ code: "BACKEND_DENIED", hint: "ask for it" });
    expect(error.details).toEqual({ driver: "other", operation: "unlink", key });
  });

  test("codes of other families pass as they are", async () => {
    const lost = new StowageError("CONFIG_INVALID", { reason: "no" });
    const { driver } = guarded(without(new MemoryDriver(), { purge: () => Promise.reject(lost) }));
    expect(await failureOf(driver.purge(createPhysicalKey(), undefined, call))).toBe(lost);
  });

  test("in streams and listings too", async () => {
    const broken = without(new MemoryDriver(), {
      get: async () =>
        new Readable({
          read() {
            this.destroy(new Error("midway"));
          },
        }),
      // biome-ignore lint/correctness/useYield: it fails before
      async *list() {
        throw new Error("no list");
      },
    });
    const { driver, clock } = guarded(broken);
    const stream = await driver.get(createPhysicalKey(), undefined, call);
    expect(await failureOf(clock.runUntil(buffer(stream)))).toMatchObject({
      code: "BACKEND_FAILED",
      details: { operation: "get", reason: "midway" },
    });
    expect(await failureOf(clock.runUntil(keysOf(driver)))).toMatchObject({
      code: "BACKEND_FAILED",
      details: { operation: "list", reason: "no list" },
    });
  });

  test("an aborted call fails with its reason, whatever the driver makes of it, or nothing", async () => {
    const reason = new StowageError("OBJECT_LEASE_LOST", { bucket: "b", key: "k" });
    const premature: ObjectDriver["get"] = (_key, _range, under) =>
      new Promise((_, reject) => {
        under.signal.addEventListener("abort", () => reject(new Error("premature close")));
      });
    for (const get of [premature, never]) {
      const abort = new AbortController();
      const { driver, clock } = guarded(without(new MemoryDriver(), { get }));
      const failed = failureOf(driver.get(createPhysicalKey(), undefined, createCall({ signal: abort.signal })));
      await settle();
      abort.abort(reason);
      expect(await clock.runUntil(failed)).toBe(reason);
    }
  });
});

describe("stalls", () => {
  test.each([
    ["get", (driver: ObjectDriver, key: PhysicalKey) => driver.get(key, undefined, call)],
    ["put", (driver: ObjectDriver) => driver.put(createPhysicalKey(), bodyOf(bytes), call)],
    ["delete", (driver: ObjectDriver, key: PhysicalKey) => driver.delete(key, call)],
    ["purge", (driver: ObjectDriver, key: PhysicalKey) => driver.purge(key, undefined, call)],
    ["list", (driver: ObjectDriver) => keysOf(driver)],
    ["capabilities", (driver: ObjectDriver) => driver.capabilities(call)],
  ])("%s that never answers", async (operation, work) => {
    const silent = without(new MemoryDriver(), {
      get: never,
      put: never,
      delete: never,
      purge: never,
      capabilities: never,
      list: () => ({ [Symbol.asyncIterator]: () => ({ next: never }) }),
    });
    const { driver, clock } = guarded(silent);
    const error = await failureOf(clock.runUntil(work(driver, createPhysicalKey()) as Promise<unknown>));
    expect(error).toMatchObject({
      code: "BACKEND_STALLED",
      details: { driver: "memory", operation, silentMs: stallMs },
    });
    expect(driver.metrics.of[operation as "get"]).toEqual({ operations: 1, retries: 2, failures: 1 });
  });

  test("of what is done with many at once too, which is not repeated", async () => {
    const { driver, clock } = guarded(without(new MemoryDriver(), { getMany: never, purgeMany: never }));
    const key = createPhysicalKey();
    const works = [
      async () => await driver.getMany?.([key], call),
      async () => await driver.purgeMany?.([{ key, sizeBytes: 1 }], call),
    ];
    for (const work of works) {
      expect(await failureOf(clock.runUntil<unknown>(work()))).toMatchObject({ code: "BACKEND_STALLED" });
    }
    const { get, purge } = driver.metrics.of;
    for (const counts of [get, purge]) expect(counts).toEqual({ operations: 1, retries: 0, failures: 1 });
  });

  test("not a moment before its time", async () => {
    const { driver, clock } = guarded(without(new MemoryDriver(), { delete: never }));
    const deleting = driver.delete(createPhysicalKey(), call).catch(() => {});
    await clock.advance(stallMs - 1);
    expect(driver.metrics.of.delete.retries).toBe(0);
    await clock.advance(stallMs / 4 + 1);
    expect(driver.metrics.of.delete.retries).toBe(1);
    await clock.runUntil(deleting);
  });

  test("a backend that hears of it is told to stop", async () => {
    const { driver, clock, injected, key } = faulty([
      { operation: "get", nth: 1, fault: { kind: "stall", when: "before" } },
    ]);
    expect(await clock.runUntil(driver.get(key, undefined, call).then(buffer))).toEqual(bytes);
    expect(injected.injected).toHaveLength(1);
  });

  test("a stream that says nothing more goes on with the rest", async () => {
    const { driver, clock, key } = faulty([{ operation: "get", nth: 1, fault: { kind: "hang", after: 3000 } }]);
    expect(await clock.runUntil(driver.get(key, undefined, call).then(buffer))).toEqual(bytes);
    expect(driver.metrics.of.get.retries).toBe(1);
  });

  test("a slow reader is no stall", async () => {
    const { driver, clock, key } = faulty([]);
    const stream = await driver.get(key, undefined, call);
    const read: Buffer[] = [];
    for await (const piece of stream) {
      read.push(piece as Buffer);
      await clock.advance(10 * stallMs);
    }
    expect(Buffer.concat(read)).toEqual(bytes);
    expect(driver.metrics.of.get.retries).toBe(0);
  });

  test("a body that is slow to come is no stall", async () => {
    const { driver, clock, memory } = faulty([]);
    const key = createPhysicalKey();
    const slow = async function* () {
      for (const piece of [bytes.subarray(0, 10), bytes.subarray(10)]) {
        await clock.sleep(10 * stallMs, call);
        yield piece;
      }
    };
    const open = async () => {
      await clock.sleep(10 * stallMs, call);
      return Readable.from(slow());
    };
    await clock.runUntil(driver.put(key, { open }, call));
    expect(memory.blobs.get(key)).toEqual(bytes);
    expect(driver.metrics.of.put.retries).toBe(0);
  });

  test("a backend that does not take the body is one", async () => {
    const attempts: PhysicalKey[] = [];
    const greedy = without(new MemoryDriver(), {
      put: async (key, body, under) => {
        attempts.push(key);
        (await body.open(under)).on("error", () => {}).once("readable", () => {});
        return await never();
      },
    });
    const { driver, clock } = guarded(greedy);
    const endless = { open: async () => Readable.from(pieces(bytes, 1000)) };
    const error = await failureOf(clock.runUntil(driver.put(createPhysicalKey(), endless, call)));
    expect(error.code).toBe("BACKEND_STALLED");
    expect(attempts).toHaveLength(3);
  });

  test("no limit on the whole: a backend that gives a little now and then", async () => {
    const { driver, clock } = guarded(
      without(new MemoryDriver(), {
        get: async () =>
          Readable.from(
            (async function* () {
              for (const piece of pieces(bytes, 100)) {
                await clock.sleep(stallMs - 1, call);
                yield piece;
              }
            })(),
          ),
      }),
    );
    expect(await clock.runUntil(driver.get(createPhysicalKey(), undefined, call).then(buffer))).toEqual(bytes);
    expect(driver.metrics.of.get.retries).toBe(0);
  });

  test("nothing is left waiting for the clock", async () => {
    const { driver, clock, key } = faulty([]);
    await driver.get(key, undefined, call).then(buffer);
    (await driver.get(key, undefined, call)).destroy();
    await driver.put(createPhysicalKey(), bodyOf(bytes), call);
    await keysOf(driver);
    for await (const _ of driver.list(undefined, call)) break;
    await settle();
    expect(clock.waiting).toBe(0);
  });

  test("a stream that comes after it was given up is closed", async () => {
    const late = Promise.withResolvers<Readable>();
    let calls = 0;
    const memory = new MemoryDriver();
    const key = createPhysicalKey();
    memory.blobs.set(key, bytes);
    const slow = without(memory, {
      get: (...args) => (++calls === 1 ? late.promise : memory.get(...args)),
    });
    const { driver, clock } = guarded(slow);
    expect(await clock.runUntil(driver.get(key, undefined, call).then(buffer))).toEqual(bytes);
    const stream = Readable.from([bytes]);
    late.resolve(stream);
    await settle();
    expect(stream.destroyed).toBe(true);
  });
});

describe("operations at once", () => {
  /** Counts who is at work; each waits for a signal. */
  function counting(options: GuardOptions) {
    let atWork = 0;
    let most = 0;
    const gates: (() => void)[] = [];
    const memory = new MemoryDriver();
    const inner = without(memory, {
      delete: async () => {
        most = Math.max(most, ++atWork);
        await new Promise<void>((resolve) => gates.push(resolve));
        atWork--;
      },
    });
    return { ...guarded(inner, { stallMs: 1e9, ...options }), memory, gates, most: () => most };
  }

  test("no more than the limit, the others in their order", async () => {
    const { driver, gates, most } = counting({ operationsMax: 3 });
    const done: number[] = [];
    const all = Promise.all(
      Array.from({ length: 10 }, async (_, index) => {
        await driver.delete(createPhysicalKey(), call);
        done.push(index);
      }),
    );
    for (let turn = 0; turn < 10; turn++) {
      await settle();
      gates.shift()?.();
    }
    await all;
    expect(most()).toBe(3);
    expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("who is aborted in the queue leaves it", async () => {
    const { driver, gates } = counting({ operationsMax: 1 });
    const first = driver.delete(createPhysicalKey(), call);
    const abort = new AbortController();
    const second = failureOf(driver.delete(createPhysicalKey(), createCall({ signal: abort.signal })));
    const third = driver.delete(createPhysicalKey(), call);
    await settle();
    abort.abort();
    expect(await second).toMatchObject({ code: "INPUT_INTERRUPTED" });
    expect(gates).toHaveLength(1);
    gates.shift()?.();
    await first;
    await settle();
    gates.shift()?.();
    await third;
  });

  test("a stream holds its place until it ends, or is destroyed", async () => {
    const { driver, memory } = counting({ operationsMax: 1 });
    const key = createPhysicalKey();
    memory.blobs.set(key, bytes);
    for (const finish of [(stream: Readable) => buffer(stream), async (stream: Readable) => stream.destroy()]) {
      const stream = await driver.get(key, undefined, call);
      let isPut = false;
      const putting = driver.put(createPhysicalKey(), bodyOf(bytes), call).then(() => {
        isPut = true;
      });
      await settle();
      expect(isPut).toBe(false);
      await finish(stream);
      await putting;
    }
  });

  test("a failed operation gives its place back", async () => {
    const { driver } = counting({ operationsMax: 1 });
    for (let round = 0; round < 3; round++) {
      expect((await failureOf(driver.get(createPhysicalKey(), undefined, call))).code).toBe("BACKEND_KEY_MISSING");
    }
  });

  test("bodies that are read from the same driver find places when all are taken", async () => {
    const { driver, clock, memory, key } = faulty([], { operationsMax: 2, lendAfterMs: 500 });
    const copies = Array.from({ length: 6 }, () => createPhysicalKey());
    const body = { open: (under: Call) => driver.get(key, undefined, under), sizeBytes: bytes.length };
    await clock.runUntil(Promise.all(copies.map((copy) => driver.put(copy, body, call))));
    for (const copy of copies) expect(memory.blobs.get(copy)).toEqual(bytes);
    expect(clock.sleeps).toContain(500);
  });

  test("readers who open many streams before they read one", async () => {
    const { driver, clock, key } = faulty([], { operationsMax: 2, lendAfterMs: 500 });
    const streams = await clock.runUntil(
      Promise.all(Array.from({ length: 9 }, () => driver.get(key, undefined, call))),
    );
    for (const stream of streams) expect(await buffer(stream)).toEqual(bytes);
    // All places are back: two at once, without a wait.
    const [one, two] = await Promise.all([driver.get(key, undefined, call), driver.get(key, undefined, call)]);
    expect(await buffer(two)).toEqual(await buffer(one));
  });

  test("who lends a place while it is short of work does not gain one by coming back", async () => {
    const { driver, clock, key, memory } = faulty([], { operationsMax: 1, lendAfterMs: 500 });
    const stream = await driver.get(key, undefined, call);
    const other = await clock.runUntil(driver.get(key, undefined, call));
    expect(await buffer(stream)).toEqual(bytes); // back at work, then at its end
    let isPut = false;
    const putting = driver.put(createPhysicalKey(), bodyOf(bytes), call).then(() => {
      isPut = true;
    });
    await settle();
    expect(isPut).toBe(false); // the other stream still has the only place
    other.destroy();
    await putting;
    expect(memory.blobs.size).toBe(2);
  });
});

describe("repetition", () => {
  test.each(["before", "after"] as const)("a put that fails %s its effect succeeds", async (when) => {
    const { driver, clock, memory, injected } = faulty([
      { operation: "put", nth: 1, fault: { kind: "fail", code: "BACKEND_UNREACHABLE", when } },
    ]);
    const key = createPhysicalKey();
    const body = bodyOf(bytes);
    const blob = await clock.runUntil(driver.put(key, body, call));
    expect(blob).toEqual({ key, sizeBytes: bytes.length, digest: digest(bytes) });
    expect(memory.blobs.get(key)).toEqual(bytes);
    expect(injected.injected).toHaveLength(1);
    expect(driver.metrics.of.put).toEqual({ operations: 1, retries: 1, failures: 0 });
    expect(clock.sleeps).toContain(50); // half of the first delay, by the least jitter
  });

  test("a request that is delivered twice", async () => {
    const { driver, clock } = faulty([{ operation: "put", nth: 1, fault: { kind: "twice" } }]);
    // The first attempt is refused: it may be another's key, and nothing of ours has failed before.
    const error = await failureOf(clock.runUntil(driver.put(createPhysicalKey(), bodyOf(bytes), call)));
    expect(error.code).toBe("BACKEND_KEY_EXISTS");
  });

  test("a key that another has taken stays another's, also after a lost attempt", async () => {
    const { driver, clock, key, memory } = faulty([
      { operation: "put", nth: 1, fault: { kind: "fail", code: "BACKEND_UNREACHABLE", when: "before" } },
    ]);
    const error = await failureOf(clock.runUntil(driver.put(key, bodyOf(Buffer.from("other bytes")), call)));
    expect(error).toMatchObject({ code: "BACKEND_KEY_EXISTS", details: { key } });
    expect(memory.blobs.get(key)).toEqual(bytes);
  });

  test("at the first attempt nothing is read back, though the bytes are the same", async () => {
    const { driver, key } = faulty([]);
    const body = bodyOf(bytes);
    expect((await failureOf(driver.put(key, body, call))).code).toBe("BACKEND_KEY_EXISTS");
    expect(body.opened).toBe(1);
    expect(driver.metrics.of.get.operations).toBe(0);
  });

  test("a body's own failure is not repeated, and is thrown as it is", async () => {
    const { driver } = faulty([]);
    const own = new StowageError("REGISTRY_UNREACHABLE", { host: "h" });
    let opened = 0;
    const open = async () => {
      opened++;
      return Readable.from(
        (async function* () {
          yield bytes;
          throw own;
        })(),
      );
    };
    expect(await failureOf(driver.put(createPhysicalKey(), { open }, call))).toBe(own);
    expect(opened).toBe(1);
  });

  test("a body of a wrong length is not repeated", async () => {
    const { driver } = faulty([]);
    for (const more of [-1, 1]) {
      const body = bodyOf(bytes);
      const wrong = { open: body.open, sizeBytes: bytes.length + more };
      expect((await failureOf(driver.put(createPhysicalKey(), wrong, call))).code).toBe("BACKEND_FAILED");
      expect(body.opened).toBe(1);
    }
  });

  test("what never succeeds later is not repeated", async () => {
    const { driver, key } = faulty([
      { operation: "delete", nth: 1, fault: { kind: "fail", code: "BACKEND_DENIED", when: "before" } },
    ]);
    expect((await failureOf(driver.delete(key, call))).code).toBe("BACKEND_DENIED");
    expect(driver.metrics.of.delete).toEqual({ operations: 1, retries: 0, failures: 1 });
    expect(driver.metrics.failuresByCode).toEqual(new Map([["BACKEND_DENIED", 1]]));
  });

  test.each(["delete", "purge"] as const)("%s is repeated", async (operation) => {
    const { driver, clock, key, memory } = faulty([
      { operation, nth: 1, fault: { kind: "fail", code: "BACKEND_THROTTLED", when: "before" } },
      { operation, nth: 2, fault: { kind: "fail", code: "BACKEND_FAILED", when: "after" } },
    ]);
    await clock.runUntil(operation === "delete" ? driver.delete(key, call) : driver.purge(key, undefined, call));
    expect(memory.blobs.size).toBe(0);
  });

  test("it ends after the last attempt, with the last failure", async () => {
    const { driver, clock, key } = faulty(
      [1, 2, 3, 4].map((nth) => ({
        operation: "get" as const,
        nth,
        fault: { kind: "fail" as const, code: "BACKEND_UNREACHABLE" as const, when: "before" as const },
      })),
    );
    expect((await failureOf(clock.runUntil(driver.get(key, undefined, call)))).code).toBe("BACKEND_UNREACHABLE");
    expect(driver.metrics.of.get).toEqual({ operations: 1, retries: 2, failures: 1 });
  });

  test("a missing key is an answer: neither repeated nor counted as a failure", async () => {
    const { driver } = faulty([]);
    expect((await failureOf(driver.get(createPhysicalKey(), undefined, call))).code).toBe("BACKEND_KEY_MISSING");
    expect(driver.metrics.of.get).toEqual({ operations: 1, retries: 0, failures: 0 });
  });

  const broken = (nth: number, after: number): PlannedFault => ({
    operation: "get",
    nth,
    fault: { kind: "break", code: "BACKEND_UNREACHABLE", after },
  });
  const ranges: readonly (readonly [string, ByteRange | undefined])[] = [
    ["the whole", undefined],
    ["a range", { first: 1000, last: 8999 }],
    ["a range past the end", { first: 1000, last: 1_000_000 }],
  ];
  test.each(ranges)("a stream that breaks goes on where it was: %s", async (_, range) => {
    const { driver, clock, key } = faulty([broken(1, 2000), broken(2, 0), broken(3, 1), broken(4, 3000)]);
    const read = await clock.runUntil(driver.get(key, range, call).then(buffer));
    expect(read).toEqual(range === undefined ? bytes : bytes.subarray(range.first, range.last + 1));
    expect(driver.metrics.of.get).toEqual({ operations: 1, retries: 4, failures: 0 });
    expect(driver.metrics.bytesRead).toBe(read.length);
  });

  test("one that breaks between its last byte and its end is whole", async () => {
    const asked: (ByteRange | undefined)[] = [];
    const memory = new MemoryDriver();
    const key = createPhysicalKey();
    memory.blobs.set(key, bytes);
    const injected = new FaultyDriver(memory, plannedFaults([broken(1, 1000)]));
    const watched = without(memory, {
      get: (at, range, under) => {
        asked.push(range);
        return injected.get(at, range, under);
      },
    });
    const { driver, clock } = guarded(watched);
    const read = await clock.runUntil(driver.get(key, { first: 0, last: 999 }, call).then(buffer));
    expect(read).toEqual(bytes.subarray(0, 1000));
    expect(asked).toEqual([{ first: 0, last: 999 }]); // no range of nothing
  });

  test("a stream that breaks again and again without a byte fails", async () => {
    const { driver, clock, key } = faulty([1, 2, 3, 4].map((nth) => broken(nth, 0)));
    const stream = await driver.get(key, undefined, call);
    expect((await failureOf(clock.runUntil(buffer(stream)))).code).toBe("BACKEND_UNREACHABLE");
  });

  test("one that breaks after each byte does too, at some time", async () => {
    const plan = Array.from({ length: 500 }, (_, index) => broken(index + 1, 1));
    const { driver, clock, key, injected } = faulty(plan, { breaksMax: 20 });
    const stream = await driver.get(key, undefined, call);
    expect((await failureOf(clock.runUntil(buffer(stream)))).code).toBe("BACKEND_UNREACHABLE");
    expect(injected.injected).toHaveLength(21);
  });

  test("a blob that was deleted meanwhile fails as missing", async () => {
    const { driver, clock, key, memory } = faulty([broken(1, 2000)]);
    const stream = await driver.get(key, undefined, call);
    const reading = (async () => {
      for await (const _ of stream) memory.blobs.delete(key);
    })();
    expect((await failureOf(clock.runUntil(reading))).code).toBe("BACKEND_KEY_MISSING");
  });

  test("a listing goes on after the last key", async () => {
    const { driver, clock, memory } = faulty(
      [1, 2, 3].map((nth) => ({
        operation: "list" as const,
        nth,
        fault: { kind: "break" as const, code: "BACKEND_UNREACHABLE" as const, after: 2 },
      })),
    );
    for (let index = 0; index < 9; index++) memory.blobs.set(createPhysicalKey(), Buffer.alloc(index));
    expect(await clock.runUntil(keysOf(driver))).toEqual([...memory.blobs.keys()].sort());
    expect(driver.metrics.of.list).toEqual({ operations: 1, retries: 3, failures: 0 });
  });

  test("an abort ends the wait for the next attempt", async () => {
    const abort = new AbortController();
    const { driver, key } = faulty([
      { operation: "get", nth: 1, fault: { kind: "fail", code: "BACKEND_THROTTLED", when: "before" } },
    ]);
    const failed = failureOf(driver.get(key, undefined, createCall({ signal: abort.signal })));
    await settle();
    abort.abort();
    expect((await failed).code).toBe("INPUT_INTERRUPTED");
  });
});

test.each([1, 2, 3, 4])("faults that pass are hidden: 400 operations beside a model, seed %i", async (seed) => {
  const random = createRandom(seed);
  const memory = new MemoryDriver();
  const kinds = ["fail", "stall", "break", "hang"] as const;
  const choose = randomFaults({ seed, rate: 0.3, kinds });
  const inner = new FaultyDriver(memory, (operation, nth) => {
    const fault = choose(operation, nth);
    const isLasting =
      fault?.kind === "fail" && new StowageError(fault.code as "BACKEND_FULL", {} as never).entry.retry === "never";
    return isLasting ? undefined : fault;
  });
  const { driver, clock } = guarded(inner, { operationsMax: 3, retry: { ...defaultRetryPolicy, attemptsMax: 20 } });
  const model = new Map<PhysicalKey, Buffer>();
  for (let round = 0; round < 400; round++) {
    const key = model.size > 0 ? random.pick([...model.keys()]) : createPhysicalKey();
    const chance = random.next();
    if (chance < 0.4) {
      const [fresh, content] = [createPhysicalKey(), random.bytes(random.integer(6000))];
      expect((await clock.runUntil(driver.put(fresh, bodyOf(content), call))).sizeBytes).toBe(content.length);
      model.set(fresh, content);
    } else if (chance < 0.7) {
      const first = random.integer(3000);
      const range = random.next() < 0.5 ? undefined : { first, last: first + random.integer(3000) };
      const read = driver.get(key, range, call).then(buffer);
      const content = model.get(key);
      if (content === undefined) expect((await failureOf(clock.runUntil(read))).code).toBe("BACKEND_KEY_MISSING");
      else expect(await clock.runUntil(read)).toEqual(range ? content.subarray(range.first, range.last + 1) : content);
    } else if (chance < 0.85) {
      await clock.runUntil(random.next() < 0.5 ? driver.delete(key, call) : driver.purge(key, undefined, call));
      model.delete(key);
    } else {
      expect(await clock.runUntil(keysOf(driver))).toEqual([...model.keys()].sort());
    }
  }
  expect(inner.injected.length).toBeGreaterThan(100);
  expect(new Set(inner.injected.map(({ fault }) => fault.kind)).size).toBe(kinds.length);
});

test("a driver can do with many at once what the one that it guards can", async () => {
  const { driver, key } = faulty([]);
  const missing = createPhysicalKey();
  expect([...((await driver.getMany?.([key, missing], call)) ?? [])]).toEqual([[key, bytes]]);
  expect(driver.metrics.bytesRead).toBe(bytes.length);
  expect([...((await driver.purgeMany?.([{ key, sizeBytes: undefined }], call)) ?? [])]).toEqual([key]);
  expect(await keysOf(driver)).toEqual([]);
  const { getMany, purgeMany } = guarded(
    without(new MemoryDriver(), { getMany: undefined, purgeMany: undefined }),
  ).driver;
  expect([getMany, purgeMany]).toEqual([undefined, undefined]);
});

test("what the driver has as a whole is handed on as it is, counted, and holds no place", async () => {
  let failures = 1;
  const whole = without(new MemoryDriver(), {
    async get() {
      if (failures-- > 0)
        throw new StowageError("BACKEND_UNREACHABLE", { driver: "memory", operation: "get", reason: "test" });
      return new WholeBody(bytes);
    },
  });
  const { driver, clock } = guarded(whole, { operationsMax: 1 });
  const key = createPhysicalKey();
  const streams = [];
  for (let count = 0; count < 3; count++) streams.push(await clock.runUntil(driver.get(key, undefined, call)));
  expect(streams.map((stream) => stream instanceof WholeBody && stream.bytes === bytes)).toEqual([true, true, true]);
  expect(await buffer(streams[0] as Readable)).toEqual(bytes);
  expect(driver.metrics.bytesRead).toBe(3 * bytes.length);
  expect(driver.metrics.of.get).toEqual({ operations: 3, retries: 1, failures: 0 });
  expect(clock.waiting).toBe(0);
});

test("a body in memory reaches the driver as it is, again in each attempt", async () => {
  const taken: BodySource[] = [];
  const memory = new MemoryDriver();
  const { driver, clock } = guarded(
    without(memory, {
      async put(key, body, under) {
        taken.push(body);
        if (taken.length === 1)
          throw new StowageError("BACKEND_UNREACHABLE", { driver: "memory", operation: "get", reason: "test" });
        return await memory.put(key, body, under);
      },
    }),
  );
  const key = createPhysicalKey();
  const sha256 = createHash("sha256").update(bytes).digest();
  await clock.runUntil(driver.put(key, { ...bodyOf(bytes), bytes, sha256 }, call));
  expect(taken.map((body) => body.bytes === bytes && body.sha256 === sha256)).toEqual([true, true]);
  expect(memory.blobs.get(key)).toEqual(bytes);
  expect(driver.metrics.bytesWritten).toBe(2 * bytes.length);
});

test("bytes and operations are counted", async () => {
  const { driver, key } = faulty([]);
  await driver.put(createPhysicalKey(), bodyOf(bytes), call);
  await buffer(await driver.get(key, { first: 0, last: 99 }, call));
  await keysOf(driver);
  await driver.delete(key, call);
  expect(driver.metrics.bytesWritten).toBe(bytes.length);
  expect(driver.metrics.bytesRead).toBe(100);
  const { put, get, list, delete: deleted } = driver.metrics.of;
  for (const counts of [put, get, list, deleted]) expect(counts).toEqual({ operations: 1, retries: 0, failures: 0 });
});

async function keysOf(driver: ObjectDriver): Promise<PhysicalKey[]> {
  const keys: PhysicalKey[] = [];
  for await (const { key } of driver.list(undefined, call) as AsyncIterable<StoredBlob>) keys.push(key);
  return keys;
}

function* pieces(content: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size);
}

function digest(content: Buffer): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}
