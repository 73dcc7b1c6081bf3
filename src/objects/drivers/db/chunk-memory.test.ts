import { expect, test } from "vitest";
import { ChunkMemory } from "./chunk-memory.ts";

test("few bodies have several chunks in a statement, many have one, and it is as before when they are gone", () => {
  const memory = new ChunkMemory();
  const first = memory.share();
  expect(first.chunks).toBe(4);
  const others = Array.from({ length: 31 }, () => memory.share());
  expect(first.chunks).toBe(2);
  others.push(...Array.from({ length: 100 }, () => memory.share()));
  expect(first.chunks).toBe(1);
  for (const other of others) other[Symbol.dispose]();
  expect(first.chunks).toBe(4);
});
