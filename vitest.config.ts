import { join } from "node:path";
import { defineConfig } from "vitest/config";

/** Random histories, kills, races, hostile images, servers that die and commands by the hundred: minutes of them. `npm run test:long`, and CI. */
const long = [
  "src/app/store-lock.test.ts",
  "src/db/embedded/lifecycle.test.ts",
  "test/acceptance/cache.test.ts",
  "test/acceptance/config.test.ts",
  "test/acceptance/migrate.test.ts",
  "test/acceptance/objectstorage.test.ts",
  "test/acceptance/several.test.ts",
  "test/fault/localfs-kill.test.ts",
  "test/fault/objects-kill.test.ts",
  "test/fault/store-order.test.ts",
  "test/fault/store-races.test.ts",
  "test/hostile/**/*.test.ts",
  "test/layercache/crash.test.ts",
  "test/layercache/limit-long.test.ts",
  "test/layercache/trouble.test.ts",
  "test/migration/**/*.test.ts",
  "test/storm/**/*.test.ts",
];

export default defineConfig({
  test: {
    // Time decides nothing: these only end what hangs, on the slowest machine too.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 120_000 } },
    maxWorkers: 2,
    // Tests start the command hundreds of times; most of each start is reading its sources.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/stowage-tests") },
    projects: [
      {
        extends: true,
        test: {
          name: "quick",
          include: ["src/**/*.test.ts", "test/**/*.test.ts", "lint/**/*.test.ts"],
          exclude: ["**/node_modules/**", ...long],
        },
      },
      { extends: true, test: { name: "long", include: long } },
    ],
  },
});
