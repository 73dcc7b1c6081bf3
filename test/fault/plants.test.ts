import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as migration from "../migration/plants.ts";
import * as storm from "../storm/plants.ts";

const sources = join(import.meta.dirname, "../../src");
const plants = [
  ...migration.plantNames.map((name) => ({ ...migration.plantNamed(name), below: sources })),
  ...storm.plantNames.map((name) => ({ ...storm.plantNamed(name), below: join(sources, "objects") })),
];

test.each(plants)("the bug still fits its source: $name", ({ changes, below }) => {
  for (const { file, from, to } of changes) {
    expect(to).not.toBe(from);
    expect(readFileSync(join(below, file), "utf8").split(from)).toHaveLength(2);
  }
});
