import { execFile } from "node:child_process";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { compiled } from "../compiled.ts";
import { describeMachine } from "../machine.ts";
import { megabytes, Report, ratio } from "../report.ts";
import { median } from "../statistics.ts";
import { removeBucket } from "./bucket.ts";
import { type Field, temporaryDirectory } from "./contenders.ts";
import type { Outcome, Task } from "./one.ts";

const loads = [
  { name: "2,000 × 100 kB", documents: 2000, sizeBytes: 100_000 },
  { name: "20 × 50 MB", documents: 20, sizeBytes: 50_000_000 },
] as const;
const contenders = ["stowage", "raw", "careful"] as const;
const goalRatio = 0.85;
const goalRssBytes = 200e6;

/**
 * `npm run bench -- store`: documents through the whole store (intent, two digests, proof, publication) and back, against the raw client doing no more
 * than putting and getting the same bytes on the same server, in turns; and against a careful one, which shows what of that is left to any store that keeps
 * the same promises.
 */
export async function benchStore(parameters: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...parameters],
    options: {
      drivers: { type: "string", default: "db,localfs,s3,swift" },
      concurrency: { type: "string", default: "1,8,32" },
      runs: { type: "string", default: "3" },
      scale: { type: "string", default: "1" },
      markdown: { type: "boolean", default: false },
    },
  });
  const program = compiled("store", join(import.meta.dirname, "one.ts"));
  const report = new Report(values.markdown);
  report.heading("store");
  report.list(describeMachine(`npm run bench -- store ${parameters.join(" ")}`));
  for (const driver of values.drivers.split(",")) {
    const configs = configsOf(driver);
    if (configs.length === 0) report.leftOut(`${driver}: no server is named (see bench/README.md)`);
    for (const { place, config } of configs) {
      report.subheading(`${driver}: ${place}`);
      const rows = [
        [
          ...["load", "at once", "put", "raw", "careful", "of raw", "of careful"],
          ...["get", "raw", "careful", "of raw", "of careful", "CPU", "raw", "peak RSS", "raw"],
        ],
      ];
      for (const { name, documents, sizeBytes } of loads) {
        for (const concurrency of values.concurrency.split(",").map(Number)) {
          const scaled = Math.max(concurrency === 1 ? 4 : concurrency, Math.round(documents * Number(values.scale)));
          const load = { documents: Math.min(documents, scaled), sizeBytes, concurrency };
          const {
            stowage: ours,
            raw,
            careful,
          } = await compare(program, driver, place, config, load, Number(values.runs));
          const bytes = load.documents * sizeBytes;
          const put = raw.putMs / ours.putMs;
          const get = raw.getMs / ours.getMs;
          rows.push([
            name,
            String(concurrency),
            rate(bytes, ours.putMs),
            rate(bytes, raw.putMs),
            rate(bytes, careful.putMs),
            ratio(put),
            ratio(careful.putMs / ours.putMs),
            rate(bytes, ours.getMs),
            rate(bytes, raw.getMs),
            rate(bytes, careful.getMs),
            ratio(get),
            ratio(careful.getMs / ours.getMs),
            `${(ours.cpuMs / 1000).toFixed(1)} s`,
            `${(raw.cpuMs / 1000).toFixed(1)} s`,
            megabytes(ours.peakRssBytes),
            megabytes(raw.peakRssBytes),
          ]);
          const what = `${driver}, ${name}, ${concurrency} at once`;
          report.goal(`${what}: put ≥ ${goalRatio} × raw`, ratio(put), put >= goalRatio);
          report.goal(`${what}: get ≥ ${goalRatio} × raw`, ratio(get), get >= goalRatio);
          report.goal(`${what}: peak RSS ≤ 200 MB`, megabytes(ours.peakRssBytes), ours.peakRssBytes <= goalRssBytes);
        }
      }
      report.table(rows);
    }
  }
  report.goals();
}

/** Medians of all, which take turns at going first, each in a fresh process and a fresh place. */
async function compare(
  program: readonly string[],
  driver: string,
  place: string,
  config: Readonly<Record<string, unknown>>,
  load: Omit<Task, "contender" | "field">,
  runs: number,
): Promise<Readonly<Record<(typeof contenders)[number], Outcome>>> {
  const outcomes = { stowage: [] as Outcome[], raw: [] as Outcome[], careful: [] as Outcome[] };
  for (let run = 0; run < runs; run++) {
    for (const contender of run % 2 === 0 ? contenders : contenders.toReversed()) {
      await using directory = await temporaryDirectory();
      const field: Field = {
        driver,
        place,
        config: fresh(driver, config, directory.path),
        dataDirectory: directory.path,
      };
      try {
        outcomes[contender].push(await runOne(program, { contender, field, ...load }));
      } finally {
        if (driver === "s3") await removeBucket(field.config);
      }
    }
  }
  const middle = (each: readonly Outcome[]): Outcome => ({
    putMs: median(each.map(({ putMs }) => putMs)),
    getMs: median(each.map(({ getMs }) => getMs)),
    cpuMs: median(each.map(({ cpuMs }) => cpuMs)),
    peakRssBytes: median(each.map(({ peakRssBytes }) => peakRssBytes)),
  });
  return { stowage: middle(outcomes.stowage), raw: middle(outcomes.raw), careful: middle(outcomes.careful) };
}

async function runOne([file = "", ...parameters]: readonly string[], task: Task): Promise<Outcome> {
  const { stdout } = await promisify(execFile)(file, [...parameters, JSON.stringify(task)]);
  return JSON.parse(stdout) as Outcome;
}

/** The configuration for one run: nothing of an earlier one lies there. */
function fresh(driver: string, config: Readonly<Record<string, unknown>>, directory: string): Record<string, unknown> {
  const name = `bench-${Date.now().toString(36)}`;
  if (driver === "localfs") return { archive_data_dir: join(directory, "files") };
  if (driver === "s3") return { ...config, bucket: name, create_bucket: true };
  if (driver === "swift") return { ...config, container: name, create_container: true };
  return {};
}

/** Servers as the tests are told of them: `STOWAGE_TEST_S3`, `STOWAGE_TEST_SWIFT`. */
function configsOf(
  driver: string,
): readonly { readonly place: string; readonly config: Readonly<Record<string, unknown>> }[] {
  if (driver === "db") return [{ place: "embedded PostgreSQL", config: {} }];
  if (driver === "localfs") return [{ place: "a directory below TMPDIR", config: {} }];
  if (driver === "s3") {
    const servers = JSON.parse(process.env.STOWAGE_TEST_S3 ?? "[]") as { name: string }[];
    return servers.map(({ name, ...config }) => ({ place: name, config }));
  }
  const swift = process.env.STOWAGE_TEST_SWIFT;
  return swift === undefined
    ? []
    : [{ place: "OpenStack Swift", config: JSON.parse(swift) as Record<string, unknown> }];
}

function rate(bytes: number, ms: number): string {
  return `${(bytes / 1e3 / ms).toFixed(0)} MB/s`;
}
