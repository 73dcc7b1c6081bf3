import { expect, test } from "vitest";
import { runKills } from "./kills.ts";
import { runStorm } from "./storm.ts";

// A few here; `npm run test:store` does the many.
const tell = () => {};

test.each([1, 2])("the store in a storm, seed %i", async (seed) => {
  const { violation, operations, faults } = await runStorm({ seed, operations: 120, rate: 0.12, stallMs: 300, tell });
  expect(violation?.reason, violation?.history.join("\n")).toBeUndefined();
  expect(operations).toBe(120);
  expect(faults).toBeGreaterThan(10);
});

test("a store whose processes are killed, seed 1", async () => {
  const { killed, violations } = await runKills({ seed: 1, kills: 6, lanes: 1, tell });
  expect(violations).toEqual([]);
  expect(killed).toBe(6);
});
