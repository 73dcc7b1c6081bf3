/**
 * Migrations in a simulation: `npm run simulate -- [--runs N] [--seed S] [--lanes N]`
 *
 * One seed is one run; `--seed S` alone repeats it and prints what happened. With `--runs N` the seeds from S on are run.
 *
 * `npm run simulate -- --plants [--runs N]` plants known bugs into the product, one after the other, and fails when one is not found within N runs.
 */
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { plantNames } from "./plants.ts";
import { simulate } from "./simulation.ts";
import { World } from "./world.ts";

const { values: flags } = parseArgs({
  options: {
    seed: { type: "string" },
    runs: { type: "string" },
    lanes: { type: "string", default: String(availableParallelism()) },
    plants: { type: "boolean", default: false },
    /** Only every so manyth seed: what a lane does. */
    stride: { type: "string", default: "1" },
  },
});
const progressEvery = 250;
const first = Number(flags.seed ?? randomInt(2 ** 30));
const runs = Number(flags.runs ?? (flags.seed === undefined ? 1000 : 1));
const lanes = Math.min(Number(flags.lanes), runs);

if (flags.plants) await plantAll();
else if (lanes > 1) await divide();
else await run();

/** Each lane has a process and a database of its own. */
async function divide(): Promise<void> {
  console.log(`seeds ${first} to ${first + runs - 1}`);
  const begun = performance.now();
  const codes = await Promise.all(
    Array.from({ length: lanes }, (_, lane) => {
      const share = Math.ceil((runs - lane) / lanes);
      const parameters = ["--lanes", "1", "--seed", `${first + lane}`, "--runs", `${share}`, "--stride", `${lanes}`];
      const child = spawn(process.execPath, [...process.execArgv, import.meta.filename, ...parameters], {
        stdio: "inherit",
      });
      return new Promise<number>((resolve, reject) => {
        child.once("error", reject);
        child.once("exit", (code) => resolve(code ?? 1));
      });
    }),
  );
  console.log(`${runs} runs, ${Math.round((performance.now() - begun) / 1000)} s`);
  process.exitCode = Math.max(...codes);
}

async function plantAll(): Promise<void> {
  const hook = join(import.meta.dirname, "plant-hook.ts");
  const most = flags.runs ?? "600";
  console.log(`${plantNames.length} plants, at most ${most} runs each, from seed ${first} on`);
  for (const name of plantNames) {
    const parameters = ["--lanes", "1", "--seed", `${first}`, "--runs", most];
    const child = spawn(process.execPath, ["--import", hook, import.meta.filename, ...parameters], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, MIGRATION_PLANT: name },
    });
    const output = (await buffer(child.stdout)).toString();
    const found = /VIOLATION .*?, after (\d+) runs: (.*)/.exec(output);
    if (found === null) process.exitCode = 1;
    console.log(`${found === null ? "NOT FOUND" : `found after ${found[1]} runs`}: ${name}`);
    if (found !== null) console.log(`    ${found[2]?.slice(0, 150)}`);
  }
}

async function run(): Promise<void> {
  await using world = await World.open();
  const outcomes = new Map<string, number>();
  let faults = 0;
  const begun = performance.now();
  for (let index = 0; index < runs; index++) {
    const seed = first + index * Number(flags.stride);
    const result = await simulate(world, seed);
    faults += result.faults;
    for (const outcome of result.outcomes) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (runs === 1) for (const line of result.history) console.log(line);
    if ((index + 1) % progressEvery === 0) console.log(`${index + 1} runs up to seed ${seed}`);
    if (result.violation === undefined) continue;
    console.log(
      `VIOLATION with seed ${seed} (npm run simulate -- --seed ${seed}), after ${index + 1} runs: ${result.violation}`,
    );
    process.exitCode = 1;
    break;
  }
  for (const [what, count] of [...outcomes].toSorted()) console.log(`${String(count).padStart(7)}  ${what}`);
  console.log(`${runs} runs, ${faults} faults, ${Math.round(performance.now() - begun)} ms`);
}
