import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { createPhysicalKey, type ObjectDriver, type PhysicalKey } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { describeDriver } from "../conformance/driver-suite.ts";
import { failureOf } from "../conformance/failure.ts";
import { type Fault, FaultyDriver, type FaultyOperation, plannedFaults, randomFaults } from "./faulty-driver.ts";
import { MemoryDriver } from "./memory-driver.ts";
import { createRandom } from "./random.ts";

const call = createCall();
const bytes = createRandom(2).bytes(5000);

describeDriver("a faulty driver without faults, over memory", async () => {
  const memory = new MemoryDriver();
  return {
    driver: new FaultyDriver(memory, () => undefined),
    chunkBytes: 64 * 1024,
    remains: async () => [...memory.blobs.keys()],
    async litter(partOf) {
      memory.foreign.push({ name: "other", sizeBytes: 3 }, { name: "part", sizeBytes: 2, partOf });
      return { foreign: [...memory.foreign], [Symbol.asyncDispose]: async () => void memory.foreign.splice(0) };
    },
    [Symbol.asyncDispose]: async () => {},
  };
});

/** One blob is there; the first call of an operation goes wrong. */
function planned(operation: FaultyOperation, fault: Fault) {
  const memory = new MemoryDriver();
  const driver = new FaultyDriver(memory, plannedFaults([{ operation, nth: 1, fault }]));
  return { memory, driver, put: (key: PhysicalKey, content = bytes) => driver.put(key, bodyOf(content), call) };
}

function bodyOf(content: Buffer) {
  return { open: async () => Readable.from([content]), sizeBytes: content.length };
}

const read = async (driver: ObjectDriver, key: PhysicalKey) => await buffer(await driver.get(key, undefined, call));

async function keysOf(driver: ObjectDriver): Promise<PhysicalKey[]> {
  const keys: PhysicalKey[] = [];
  for await (const { key } of driver.list(undefined, call)) keys.push(key);
  return keys;
}

describe("each fault does what it says", () => {
  test("fail, before and after", async () => {
    for (const when of ["before", "after"] as const) {
      const key = createPhysicalKey();
      const { memory, driver, put } = planned("put", { kind: "fail", code: "BACKEND_THROTTLED", when });
      expect((await failureOf(put(key))).code).toBe("BACKEND_THROTTLED");
      expect(memory.blobs.has(key)).toBe(when === "after");
      expect(driver.injected).toMatchObject([{ operation: "put", nth: 1, key }]);
    }
  });

  test("stall, until the call ends", async () => {
    const { driver, put } = planned("get", { kind: "stall", when: "before" });
    const key = createPhysicalKey();
    await put(key);
    const abort = new AbortController();
    const failed = failureOf(driver.get(key, undefined, createCall({ signal: abort.signal })));
    abort.abort();
    expect((await failed).code).toBe("INPUT_INTERRUPTED");
  });

  test("break and truncate", async () => {
    for (const kind of ["break", "truncate"] as const) {
      const fault = kind === "break" ? { kind, code: "BACKEND_FAILED" as const, after: 100 } : { kind, after: 100 };
      const { driver, put } = planned("get", fault);
      const key = createPhysicalKey();
      await put(key);
      if (kind === "break") expect((await failureOf(read(driver, key))).code).toBe("BACKEND_FAILED");
      else expect(await read(driver, key)).toEqual(bytes.subarray(0, 100));
      expect(await read(driver, key)).toEqual(bytes);
    }
  });

  test("flip: read wrongly once, stored wrongly for ever", async () => {
    const reading = planned("get", { kind: "flip", bit: 9 });
    const storing = planned("put", { kind: "flip", bit: 9 });
    const key = createPhysicalKey();
    const wrong = Buffer.from(bytes);
    wrong[1] = (wrong[1] as number) ^ 2;
    await reading.put(key);
    await storing.put(key);
    expect(await read(reading.driver, key)).toEqual(wrong);
    expect(await read(reading.driver, key)).toEqual(bytes);
    expect(await read(storing.driver, key)).toEqual(wrong);
  });

  test("torn: the size of all, the bytes of some", async () => {
    const { driver, put } = planned("put", { kind: "torn", after: 10 });
    const key = createPhysicalKey();
    expect((await put(key)).sizeBytes).toBe(bytes.length);
    expect(await read(driver, key)).toEqual(bytes.subarray(0, 10));
  });

  test("misdirect: another's bytes", async () => {
    const { driver, put } = planned("get", { kind: "misdirect" });
    const [one, two] = [createPhysicalKey(), createPhysicalKey()];
    await put(one, Buffer.from("one"));
    await put(two, Buffer.from("two"));
    expect((await read(driver, one)).toString()).toBe("two");
    expect((await read(driver, one)).toString()).toBe("one");
  });

  test("twice: the second answer is given", async () => {
    const { driver, memory, put } = planned("put", { kind: "twice" });
    const key = createPhysicalKey();
    expect((await failureOf(put(key))).code).toBe("BACKEND_KEY_EXISTS");
    expect(memory.blobs.get(key)).toEqual(bytes);
    await driver.delete(key, call);
  });

  test("late: nobody hears of it, and it is done after all", async () => {
    for (const operation of ["put", "delete"] as const) {
      const { driver, memory, put } = planned(operation, { kind: "late", operations: 2 });
      const key = createPhysicalKey();
      if (operation === "delete") await put(key);
      const failed = operation === "put" ? put(key) : driver.delete(key, call);
      expect((await failureOf(failed)).code).toBe("BACKEND_UNREACHABLE");
      expect(memory.blobs.has(key)).toBe(operation === "delete");
      await keysOf(driver);
      expect(memory.blobs.has(key)).toBe(operation === "delete");
      expect(await keysOf(driver)).toEqual(operation === "put" ? [key] : []);
    }
    const { driver, memory, put } = planned("put", { kind: "late", operations: 99 });
    await failureOf(put(createPhysicalKey()));
    await driver.deliverLate();
    expect(memory.blobs.size).toBe(1);
  });

  test("stale: as it was some operations ago", async () => {
    const { driver, put } = planned("list", { kind: "stale", operations: 3 });
    const [old, deleted, fresh] = [createPhysicalKey(), createPhysicalKey(), createPhysicalKey()];
    await put(old);
    await put(deleted);
    await put(fresh); // the third operation before the listing, itself included
    await driver.delete(deleted, call);
    expect(await keysOf(driver)).toEqual([old, deleted].sort());
    expect(await keysOf(driver)).toEqual([old, fresh].sort());
  });

  test("none while it is disarmed; a fault that an operation can't have is a mistake of the plan", async () => {
    const { driver, put } = planned("put", { kind: "fail", code: "BACKEND_FULL", when: "before" });
    driver.isArmed = false;
    await put(createPhysicalKey());
    const wrong = planned("delete", { kind: "torn" });
    await expect(wrong.driver.delete(createPhysicalKey(), call)).rejects.toThrow("delete can't have the fault torn");
  });
});

describe("faults by seed", () => {
  const operations = ["put", "get", "delete", "purge", "list"] as const;
  const drawn = (seed: number, rate = 0.5) => {
    const choose = randomFaults({ seed, rate });
    return Array.from({ length: 2000 }, (_, index) => choose(operations[index % 5] as FaultyOperation, index));
  };

  test("the same for the same, others for others, about as many as wanted", () => {
    expect(drawn(1)).toEqual(drawn(1));
    expect(drawn(1)).not.toEqual(drawn(2));
    const share = drawn(3, 0.2).filter((fault) => fault !== undefined).length / 2000;
    expect(share).toBeGreaterThan(0.15);
    expect(share).toBeLessThan(0.25);
  });

  test("each kind comes, but for those that need a watch", () => {
    const kinds = new Set(drawn(4).flatMap((fault) => fault?.kind ?? []));
    expect([...kinds].sort()).toEqual(
      ["break", "fail", "flip", "late", "misdirect", "stale", "torn", "truncate", "twice"].sort(),
    );
    const choose = randomFaults({ seed: 4, rate: 1, kinds: ["hang"] });
    expect(choose("get", 1)).toMatchObject({ kind: "hang" });
    expect(choose("put", 1)).toBeUndefined();
  });

  test("a thousand operations run to their end, and what was injected is on record", async () => {
    const seed = 42;
    const random = createRandom(seed);
    const driver = new FaultyDriver(new MemoryDriver(), randomFaults({ seed, rate: 0.3 }));
    const keys: PhysicalKey[] = [];
    for (let round = 0; round < 1000; round++) {
      const key = random.next() < 0.5 || keys.length === 0 ? createPhysicalKey() : random.pick(keys);
      keys.push(key);
      const work = random.pick([
        () => driver.put(key, bodyOf(random.bytes(random.integer(3000))), call),
        () => read(driver, key),
        () => driver.delete(key, call),
        () => keysOf(driver),
      ]);
      await work().catch((error: unknown) => {
        if (!String(error).startsWith("StowageError")) throw error;
      });
    }
    expect(driver.injected.length).toBeGreaterThan(200);
  });
});
