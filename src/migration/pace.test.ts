import { expect, test } from "vitest";
import { ManualClock, settle } from "../../test/fault/manual-clock.ts";
import { type Errand, Pace } from "./pace.ts";

const MiB = 1024 * 1024;

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
  const objects = await asking(new Pace(new ManualClock(), 3, undefined), Array(7).fill(100 * MiB));
  expect(objects.indexes()).toEqual([0, 1, 2]);
  await objects.end(1);
  expect(objects.indexes()).toEqual([0, 2, 3]);
  for (const index of upTo(7)) await objects.end(index);
  await objects.all;
});

test("where nobody says how many, 32 short ones", async () => {
  const objects = await asking(new Pace(new ManualClock(), "auto", undefined), Array(100).fill(90_000));
  expect(objects.indexes()).toEqual(upTo(32));
});

test("and half as many that are long: memory is bounded", async () => {
  for (const bytes of [MiB, 5000 * MiB]) {
    const objects = await asking(new Pace(new ManualClock(), "auto", undefined), Array(100).fill(bytes));
    expect(objects.indexes()).toEqual(upTo(16));
  }
});

test("when a long one has ended, several short ones begin", async () => {
  const sizes = [...Array(16).fill(MiB), ...Array(10).fill(MiB / 8)];
  const objects = await asking(new Pace(new ManualClock(), "auto", undefined), sizes);
  await objects.end(0);
  expect(objects.indexes()).toEqual(upTo(24).slice(1));
});

test("who asks to slow down is heard once a second, and gets more again after a while", async () => {
  const clock = new ManualClock();
  const pace = new Pace(clock, "auto", undefined);
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
  const pace = new Pace(new ManualClock(), "auto", undefined);
  const copied = await asking(pace, Array(100).fill(1000));
  const verified = await asking(pace, Array(100).fill(1000), "verifying");
  expect(verified.indexes()).toEqual(upTo(32));
  pace.slowDown();
  for (const index of upTo(20)) await verified.end(index);
  expect(verified.indexes().length).toBe(16);
  expect(copied.indexes()).toEqual(upTo(32));
});

test("a failure gives its place back", async () => {
  const pace = new Pace(new ManualClock(), 1, undefined);
  await expect(pace.run("copying", 1, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await pace.run("copying", 1, async () => "yes")).toBe("yes");
});
