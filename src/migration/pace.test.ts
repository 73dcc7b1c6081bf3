import { expect, test } from "vitest";
import { ManualClock, settle } from "../../test/fault/manual-clock.ts";
import { type Errand, Pace } from "./pace.ts";

const MiB = 1024 * 1024;

function paceOf(options: Partial<ConstructorParameters<typeof Pace>[0]>): Pace {
  return new Pace({
    clock: new ManualClock(),
    concurrency: "auto",
    bytesPerSecondMax: undefined,
    isConsiderate: false,
    ...options,
  });
}

/** Objects that ask all at once; each ends when it is told to. */
async function asking(pace: Pace, sizes: readonly number[], errand: Errand = "copying") {
  const atWork = new Map<number, () => void>();
  const all = sizes.map((bytes, index) =>
    pace.run(errand, bytes, () => new Promise<void>((resolve) => atWork.set(index, resolve))),
  );
  await settle();
  return {
    all: Promise.all(all),
    indexes: () => [...atWork.keys()],
    async end(index: number) {
      atWork.get(index)?.();
      atWork.delete(index);
      await settle();
    },
  };
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

test("as many at once as was said, however long they are, in their order", async () => {
  const objects = await asking(paceOf({ concurrency: 3 }), Array(7).fill(100 * MiB));
  expect(objects.indexes()).toEqual([0, 1, 2]);
  await objects.end(1);
  expect(objects.indexes()).toEqual([0, 2, 3]);
  for (const index of upTo(7)) await objects.end(index);
  await objects.all;
});

test("where nobody says how many, 32 short ones", async () => {
  const objects = await asking(paceOf({}), Array(100).fill(90_000));
  expect(objects.indexes()).toEqual(upTo(32));
});

test("and half as many that are long: memory is bounded", async () => {
  for (const bytes of [MiB, 5000 * MiB]) {
    const objects = await asking(paceOf({}), Array(100).fill(bytes));
    expect(objects.indexes()).toEqual(upTo(16));
  }
});

test("when a long one has ended, several short ones begin", async () => {
  const sizes = [...Array(16).fill(MiB), ...Array(10).fill(MiB / 8)];
  const objects = await asking(paceOf({}), sizes);
  await objects.end(0);
  expect(objects.indexes()).toEqual(upTo(24).slice(1));
});

test("who asks to slow down is heard once a second, and gets more again after a while", async () => {
  const clock = new ManualClock();
  const pace = paceOf({ clock });
  pace.slowDown();
  pace.slowDown();
  await clock.advance(1000);
  pace.slowDown();
  const objects = await asking(pace, Array(100).fill(1000));
  expect(objects.indexes()).toEqual(upTo(8));
  for (const _ of upTo(8)) pace.speedUp();
  await settle();
  expect(objects.indexes()).toEqual(upTo(9));
});

test("what is to be verified does not wait for what is to be copied, and slows down with it", async () => {
  const pace = paceOf({});
  const copied = await asking(pace, Array(100).fill(1000));
  const verified = await asking(pace, Array(100).fill(1000), "verifying");
  expect(verified.indexes()).toEqual(upTo(32));
  pace.slowDown();
  for (const index of upTo(20)) await verified.end(index);
  expect(verified.indexes().length).toBe(16);
  expect(copied.indexes()).toEqual(upTo(32));
});

test("a failure gives its place back", async () => {
  const pace = paceOf({ concurrency: 1 });
  await expect(pace.run("copying", 1, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await pace.run("copying", 1, async () => "yes")).toBe("yes");
});

/** A pace beside others, and objects that pass one after the other, each as long as is said. */
function besideOthers(options: Parameters<typeof paceOf>[0] = {}) {
  let now = 0;
  const pace = paceOf({ isConsiderate: true, stopwatch: () => now, ...options });
  const pass = async (errand: Errand, count: number, msOf: (turn: number) => number) => {
    for (let turn = 0; turn < count; turn++) {
      await pace.watch(errand, async () => {
        now += msOf(turn);
      });
    }
  };
  return { pace, pass };
}

async function atOnceIn(pace: Pace): Promise<number> {
  const objects = await asking(pace, Array(100).fill(1000));
  const { length } = objects.indexes();
  for (const index of upTo(100)) await objects.end(index);
  await objects.all;
  return length;
}

test("beside others it begins with one, and takes more while that costs each no time", async () => {
  const { pace, pass } = besideOthers();
  expect(await atOnceIn(pace)).toBe(1);
  for (const errand of ["copying", "verifying"] as const) await pass(errand, 32, () => 25);
  expect(await atOnceIn(pace)).toBe(3);
  await pass("copying", 2000, () => 25);
  expect(await atOnceIn(pace)).toBe(32);
  // Who works beside it waits as long.
  await pass("copying", 256, () => 60);
  expect(await atOnceIn(pace)).toBeLessThan(32);
  await pass("copying", 2000, () => 60);
  expect(await atOnceIn(pace)).toBe(1);
  await pass("copying", 2000, () => 30);
  expect(await atOnceIn(pace)).toBe(32);
});

test("beside others, a few long objects do not slow it down, and calm copies alone do not speed it up", async () => {
  const { pace, pass } = besideOthers();
  await pass("copying", 32, (turn) => {
    pace.speedUp();
    return turn % 3 === 0 ? 5000 : 10;
  });
  expect(await atOnceIn(pace)).toBe(2);
});

test("beside others, a number that was asked for stays", async () => {
  const { pace, pass } = besideOthers({ concurrency: 7 });
  await pass("copying", 100, (turn) => turn);
  expect(await atOnceIn(pace)).toBe(7);
});

test("beside others, who asks to slow down is heard too", async () => {
  const { pace, pass } = besideOthers();
  await pass("copying", 2000, () => 25);
  pace.slowDown();
  expect(await atOnceIn(pace)).toBe(16);
});
