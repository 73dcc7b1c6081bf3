import { afterAll, beforeAll, expect, test } from "vitest";
import { simulate } from "./simulation.ts";
import { World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await World.open();
});
afterAll(() => world?.[Symbol.asyncDispose]());

// A few here; `npm run simulate` does the many.
test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])("migrations in a simulation, seed %i", async (seed) => {
  const { violation, outcomes, history } = await simulate(world, seed);
  expect(violation, history.join("\n")).toBeUndefined();
  expect(outcomes.length).toBeGreaterThan(0);
});
