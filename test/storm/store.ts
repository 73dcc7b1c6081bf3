/**
 * The store in a storm:
 *
 * - `npm run test:store -- [--operations N] [--seed S]`: operations with faults against a model
 * - `npm run test:store -- --kills N [--seed S] [--lanes N]`: processes killed with SIGKILL, and what they leave
 *
 * Prints its seed; what fails is repeated by naming it.
 */
import { randomInt } from "node:crypto";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { runKills } from "./kills.ts";
import { runStorm } from "./storm.ts";

const { values: flags } = parseArgs({
  options: {
    seed: { type: "string", default: String(randomInt(2 ** 31)) },
    operations: { type: "string" },
    rate: { type: "string", default: "0.12" },
    kills: { type: "string" },
    lanes: { type: "string", default: String(Math.min(4, availableParallelism())) },
  },
});
const seed = Number(flags.seed);
if (flags.kills !== undefined) await kill(Number(flags.kills));
if (flags.operations !== undefined || flags.kills === undefined) await storm(Number(flags.operations ?? 2000));

async function storm(operations: number): Promise<void> {
  console.log(`seed ${seed}, ${operations} operations`);
  const started = performance.now();
  const { outcomes, faults, objects, violation } = await runStorm({
    seed,
    operations,
    rate: Number(flags.rate),
    stallMs: 300,
    tell: console.log,
  });
  print(outcomes);
  console.log(`${operations} operations, ${faults} faults, ${objects} objects at the end, ${secondsSince(started)} s`);
  if (violation === undefined) return;
  console.log(`VIOLATION with seed ${seed}: ${violation.reason}\n`);
  for (const line of violation.history) console.log(line);
  process.exitCode = 1;
}

async function kill(kills: number): Promise<void> {
  console.log(`seed ${seed}, ${kills} kills`);
  const started = performance.now();
  const { killed, finished, lastSteps, violations } = await runKills({
    seed,
    kills,
    lanes: Number(flags.lanes),
    tell: console.log,
  });
  print(lastSteps);
  console.log(`${killed} killed, ${finished} at their end before, ${secondsSince(started)} s`);
  for (const violation of violations) console.log(`VIOLATION with seed ${seed}: ${violation}`);
  if (violations.length > 0) process.exitCode = 1;
}

function print(counts: ReadonlyMap<string, number>): void {
  for (const [what, count] of [...counts].toSorted()) console.log(`${String(count).padStart(6)}  ${what}`);
}

function secondsSince(started: number): number {
  return Math.round((performance.now() - started) / 1000);
}
