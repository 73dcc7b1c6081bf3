import { expect, test } from "vitest";
import { checkObjectSize, objectBytesMax, PartBuffers, partBytesAt, partsMax } from "./part-buffers.ts";

const MiB = 1024 * 1024;

test("parts are large enough for the object's size", () => {
  const buffers = new PartBuffers();
  for (const sizeBytes of [0, 1, 100 * MiB, 78 * 1024 * MiB, 200 * 1024 * MiB, objectBytesMax]) {
    const bytes = buffers.partBytes(sizeBytes);
    expect(bytes).toBeGreaterThanOrEqual(8 * MiB);
    expect(Math.ceil(sizeBytes / bytes)).toBeLessThanOrEqual(partsMax);
    expect(partBytesAt(partsMax, bytes, sizeBytes)).toBe(bytes);
  }
});

test("without a size, 10,000 parts hold the largest object, and the first thousand are small", () => {
  let sum = 0;
  for (let number = 1; number <= partsMax; number++) sum += partBytesAt(number, 8 * MiB, undefined);
  expect(sum).toBeGreaterThan(objectBytesMax);
  expect(partBytesAt(1000, 8 * MiB, undefined)).toBe(8 * MiB);
});

test("what is larger than an object can be is refused before anything is read", () => {
  checkObjectSize(objectBytesMax);
  checkObjectSize(undefined);
  expect(() => checkObjectSize(objectBytesMax + 1)).toThrow("a limit was exceeded");
});

test("everybody gets one buffer, more only within the budget, and smaller ones in a crowd", () => {
  const buffers = new PartBuffers();
  const taken = Array.from({ length: 4 }, () => buffers.take(8 * MiB));
  expect(buffers.tryTake(8 * MiB)).toBeUndefined();
  expect(buffers.partBytes(undefined)).toBe(5 * MiB);
  const beyond = buffers.take(5 * MiB);
  expect(beyond).toHaveLength(5 * MiB);
  buffers.give(beyond);
  const [first] = taken;
  buffers.give(first as Buffer);
  expect(buffers.tryTake(8 * MiB)).toBe(first);
});
