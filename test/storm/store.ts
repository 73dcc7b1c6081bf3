/**
 * The store in a storm: `npm run test:store -- [--seed S] [--operations N]`.
 *
 * Prints its seed; a seed that fails is repeated by naming it.
 */
import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { runStorm } from "./storm.ts";

const { values: flags } = parseArgs({
  options: {
    seed: { type: "string", default: String(randomInt(2 ** 31)) },
    operations: { type: "string", default: "2000" },
    rate: { type: "string", default: "0.12" },
  },
});
const seed = Number(flags.seed);
const operations = Number(flags.operations);
console.log(`seed ${seed}, ${operations} operations`);
const started = performance.now();
const { outcomes, faults, objects, violation } = await runStorm({
  seed,
  operations,
  rate: Number(flags.rate),
  stallMs: 300,
});
for (const [outcome, count] of [...outcomes].toSorted()) console.log(`${String(count).padStart(6)}  ${outcome}`);
console.log(`${faults} faults, ${objects} objects at the end, ${Math.round((performance.now() - started) / 1000)} s`);
if (violation !== undefined) {
  console.log(`VIOLATION with seed ${seed}: ${violation.reason}\n`);
  for (const line of violation.history) console.log(line);
  process.exitCode = 1;
}
