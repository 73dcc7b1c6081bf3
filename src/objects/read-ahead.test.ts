import { beforeEach, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { MemoryDriver } from "../../test/fault/memory-driver.ts";
import { StowageError } from "../errors/index.ts";
import { createCall } from "../runtime/index.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { createPhysicalKey } from "./physical-key.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { Located } from "./rows/locations.ts";

const call = createCall();
let memory: MemoryDriver;
let together: number[];
let alone: number;

beforeEach(() => {
  memory = new MemoryDriver();
  together = [];
  alone = 0;
});

/** The driver, with a note of what is asked. */
function watched(changes: Partial<ObjectDriver> = {}): ObjectDriver {
  const { getMany } = memory;
  return Object.assign(Object.create(memory) as ObjectDriver, {
    getMany: (keys: readonly PhysicalKey[]) => {
      together.push(keys.length);
      return getMany?.(keys, call);
    },
    get: (...parameters: Parameters<ObjectDriver["get"]>) => {
      alone++;
      return memory.get(...parameters);
    },
    ...changes,
  });
}

function located(count: number, sizeBytes: number, backendId = 1): Located[] {
  return Array.from({ length: count }, (_, index) => {
    const physicalKey = createPhysicalKey();
    memory.blobs.set(physicalKey, Buffer.alloc(sizeBytes, index));
    const recorded = { codec: "none", contentDigest: "", contentBytes: sizeBytes, storedDigest: "" } as const;
    const locationId = backendId * 1000 + index;
    const writtenFor = { account: "a", bucket: "b", key: String(index) };
    return { ...recorded, storedBytes: sizeBytes, locationId, writtenFor, backendId, physicalKey, damage: undefined };
  });
}

async function expectAll(ahead: ReadAhead, driver: ObjectDriver, locations: readonly Located[]): Promise<void> {
  for (const location of locations) {
    expect((await ahead.read(driver, location, call)).equals(memory.blobs.get(location.physicalKey) as Buffer)).toBe(
      true,
    );
  }
}

test("short ones are read together, as many as fit, and each once", async () => {
  const locations = located(100, 10_000);
  await expectAll(new ReadAhead(locations), watched(), locations);
  expect(together).toEqual([32, 32, 32, 4]);
  expect(alone).toBe(0);
  together = [];
  const larger = located(30, 60_000);
  const ahead = new ReadAhead(larger);
  const driver = watched();
  await Promise.all(larger.map((location) => expectAll(ahead, driver, [location])));
  expect(together).toEqual([17, 13]);
});

test("long ones are read alone, and so is what nobody announced, or has been read already", async () => {
  const [first, second, third] = located(3, 300_000) as [Located, Located, Located];
  const ahead = new ReadAhead([first, second]);
  await expectAll(ahead, watched(), [second, third, first, first]);
  expect([together, alone]).toEqual([[], 4]);
});

test("in another order than was announced", async () => {
  const locations = located(50, 40_000);
  await expectAll(new ReadAhead(locations), watched(), locations.toReversed());
  expect(alone).toBe(0);
});

test("those of one place together, with those of another between them", async () => {
  const [here, there] = [located(4, 1000), located(4, 1000, 2)];
  const locations = here.flatMap((location, index) => [location, there[index] as Located]);
  await expectAll(new ReadAhead(locations), watched(), locations);
  expect(together).toEqual([4, 4]);
});

test("what a backend can't do together, does not, or fails with, is read alone", async () => {
  const locations = located(5, 1000);
  const fails = () => Promise.reject(new StowageError("BACKEND_FAILED", { driver: "memory", operation: "get" }));
  for (const getMany of [undefined, async () => new Map(), fails]) {
    alone = 0;
    await expectAll(new ReadAhead(locations), watched({ getMany } as Partial<ObjectDriver>), locations);
    expect(alone).toBe(5);
  }
  memory.blobs.delete(locations[2]?.physicalKey as PhysicalKey);
  const ahead = new ReadAhead(locations);
  await expectAll(ahead, watched(), locations.slice(0, 2));
  const missing = await failureOf(ahead.read(watched(), locations[2] as Located, call));
  expect(missing.code).toBe("BACKEND_KEY_MISSING");
});

test("an abort ends all who wait for one answer", async () => {
  const locations = located(3, 1000);
  const abort = new AbortController();
  const under = createCall({ signal: abort.signal });
  const driver = watched({
    getMany: async () => {
      abort.abort();
      throw new Error("closed");
    },
  });
  const ahead = new ReadAhead(locations);
  const reads = locations.map((location) => failureOf(ahead.read(driver, location, under)));
  for (const failure of await Promise.all(reads)) expect(failure.code).toBe("INPUT_INTERRUPTED");
});
