/**
 * Migrations that are killed with SIGKILL: `npm run test:migration -- [--kills N] [--seed S]`
 *
 * Between the embedded database and files; through the S3 servers that `STOWAGE_TEST_S3` names as well. Prints its seed; what fails is repeated by
 * naming it.
 */
import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import type { S3Server } from "../s3/bucket.ts";
import { runKills } from "./kills.ts";

const { values: flags } = parseArgs({
  options: {
    seed: { type: "string", default: String(randomInt(2 ** 30)) },
    kills: { type: "string", default: "300" },
  },
});
const servers = JSON.parse(process.env.STOWAGE_TEST_S3 ?? "[]") as readonly S3Server[];
const route = ["db", ...servers.map(({ name }) => `s3 (${name})`), "localfs", "db"].join(" → ");
console.log(`seed ${flags.seed}, ${flags.kills} kills, ${route}`);
if (servers.length === 0) console.log("S3 is left out: STOWAGE_TEST_S3 names no server");
const begun = performance.now();
const result = await runKills({
  seed: Number(flags.seed),
  kills: Number(flags.kills),
  servers,
  note: (line) => console.log(`  ${line}`),
});
for (const [step, count] of [...result.lastSteps].toSorted()) console.log(`${String(count).padStart(6)}  ${step}`);
const { killed, migrations, withCompany, left, violations } = result;
const seconds = Math.round((performance.now() - begun) / 1000);
console.log(
  `${killed} killed in ${migrations} migrations, ${withCompany} with company; ${left} left for long; ${seconds} s`,
);
for (const violation of violations) console.log(`VIOLATION with seed ${flags.seed}: ${violation}`);
if (violations.length > 0) process.exitCode = 1;
