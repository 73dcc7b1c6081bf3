import { expect, test } from "vitest";
import { runStorm } from "./storm.ts";

// A few here; `npm run test:store` does the many.
test.each([1, 2])("the store in a storm, seed %i", async (seed) => {
  const { violation, operations, faults } = await runStorm({ seed, operations: 120, rate: 0.12, stallMs: 300 });
  expect(violation?.reason, violation?.history.join("\n")).toBeUndefined();
  expect(operations).toBe(120);
  expect(faults).toBeGreaterThan(10);
});
