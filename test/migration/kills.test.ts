import { expect, test } from "vitest";
import { runKills } from "./kills.ts";

// A handful here; `npm run test:migration` does the many.
test("migrations that are killed", async () => {
  const { killed, migrations, violations } = await runKills({ seed: 1, kills: 5, servers: [], note: () => {} });
  expect(violations).toEqual([]);
  expect(killed).toBeGreaterThanOrEqual(5);
  expect(migrations).toBeGreaterThan(0);
});
