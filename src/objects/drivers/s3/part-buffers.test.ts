import { expect, test } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { ManualClock, settle } from "../../../../test/fault/manual-clock.ts";
import { createCall } from "../../../runtime/index.ts";
import { checkObjectSize, objectBytesMax, PartBuffers, partBytesAt, partsMax } from "./part-buffers.ts";

const MiB = 1024 * 1024;
const call = createCall();

test("parts are large enough for the object's size", () => {
  const buffers = new PartBuffers(new ManualClock());
  for (const sizeBytes of [0, 1, 100 * MiB, 78 * 1024 * MiB, 200 * 1024 * MiB, objectBytesMax]) {
    const bytes = buffers.partBytes(sizeBytes);
    expect(bytes).toBeGreaterThanOrEqual(6 * MiB);
    expect(Math.ceil(sizeBytes / bytes)).toBeLessThanOrEqual(partsMax);
    expect(partBytesAt(partsMax, bytes, sizeBytes)).toBe(bytes);
  }
});

test("without a size, 10,000 parts hold the largest object, and the first thousand are small", () => {
  let sum = 0;
  for (let number = 1; number <= partsMax; number++) sum += partBytesAt(number, 6 * MiB, undefined);
  expect(sum).toBeGreaterThan(objectBytesMax);
  expect(partBytesAt(1000, 6 * MiB, undefined)).toBe(6 * MiB);
});

test("what is larger than an object can be is refused before anything is read", () => {
  checkObjectSize(objectBytesMax);
  checkObjectSize(undefined);
  expect(() => checkObjectSize(objectBytesMax + 1)).toThrow("a limit was exceeded");
});

test("more than one buffer only within the budget, and the same ones again", async () => {
  const buffers = new PartBuffers(new ManualClock());
  const taken = [];
  for (let count = 0; count < 6; count++) taken.push(await buffers.take(6 * MiB, call));
  expect(buffers.tryTake(6 * MiB)).toBeUndefined();
  buffers.give(taken[0] as Buffer);
  expect(buffers.tryTake(6 * MiB)).toBe(taken[0]);
});

test("the next upload waits for room, but not for ever, and whoever waited longest is first", async () => {
  const clock = new ManualClock();
  const buffers = new PartBuffers(clock);
  const [first] = await Promise.all(Array.from({ length: 6 }, () => buffers.take(6 * MiB, call)));
  const entered: string[] = [];
  const wait = async (name: string) => {
    const buffer = await buffers.take(6 * MiB, call);
    entered.push(name);
    return buffer;
  };
  const [one, other] = [wait("one"), wait("other")];
  await settle();
  expect(entered).toEqual([]);
  buffers.give(first as Buffer);
  expect(await one).toBe(first);
  expect(buffers.tryTake(1)).toBeUndefined();
  await clock.runUntil(other);
  expect(entered).toEqual(["one", "other"]);
  expect(clock.waiting).toBe(0);
});

test("as long as buffers are given back, nobody takes one beyond the budget, however long it waits", async () => {
  const clock = new ManualClock();
  const buffers = new PartBuffers(clock);
  const taken = await Promise.all(Array.from({ length: 6 }, () => buffers.take(6 * MiB, call)));
  const waiting = Array.from({ length: 4 }, () => buffers.take(6 * MiB, call));
  let last = false;
  void waiting[3]?.then(() => {
    last = true;
  });
  await settle();
  for (const [index, buffer] of taken.slice(0, 3).entries()) {
    await clock.advance(9_000);
    buffers.give(buffer);
    expect(await waiting[index]).toBe(buffer);
  }
  await clock.advance(9_000);
  expect(last).toBe(false);
  await clock.runUntil(waiting[3] as Promise<Buffer>);
});

test("who does not wait any more takes nothing", async () => {
  const buffers = new PartBuffers(new ManualClock());
  const [first, second] = await Promise.all(Array.from({ length: 6 }, () => buffers.take(6 * MiB, call)));
  const abort = new AbortController();
  const waiting = buffers.take(6 * MiB, createCall({ signal: abort.signal }));
  abort.abort();
  expect((await failureOf(waiting)).code).toBe("INPUT_INTERRUPTED");
  for (const buffer of [first, second]) buffers.give(buffer as Buffer);
  expect([buffers.tryTake(6 * MiB), buffers.tryTake(6 * MiB)].every(Buffer.isBuffer)).toBe(true);
});
