import { type ChildProcess, spawn } from "node:child_process";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { openDatabase } from "../../src/db/index.ts";
import { compiled } from "../compiled.ts";
import { describeMachine } from "../machine.ts";
import { findProgram } from "../program.ts";
import { megabytes, milliseconds, Report, ratio, seconds } from "../report.ts";
import { median } from "../statistics.ts";
import { removeBucket } from "../store/bucket.ts";
import { temporaryDirectory } from "../store/contenders.ts";
import { farAway, type Way } from "./far-away.ts";
import { analyses, bytesOf, type Load, large, scaled, small } from "./load.ts";
import type { Outcome, Task } from "./one.ts";
import { call, make, type Place } from "./store.ts";

const goalRatio = 0.8;
const goalOriginal = 10;
const goalRssBytes = 250e6;
const goalPlanMs = 30_000;
const goalReaders = 2;
/** Time for each object may grow by so much from the smallest to the largest number, and count as linear. */
const goalGrowth = 1.25;
/**
 * What operators have: a server in another building. Beside this process there is no wait that doing several things at once could fill. The second is the
 * one where neither the server nor this machine is the limit, but the line between them.
 */
const ways: readonly (Way & { readonly name: string })[] = [
  { name: "20 ms away", roundTripMs: 20 },
  { name: "20 ms and 200 Mbit/s away", roundTripMs: 20, bytesPerSecond: 25e6 },
];
const database: Place = { driver: "db", config: {} };

interface Options {
  /** The command line of a task's process, without the task. */
  readonly program: readonly string[];
  readonly scale: number;
  readonly runs: number;
  readonly concurrency: number | "auto";
  /** Where it is, if it is. */
  readonly rclone: string | undefined;
  readonly destinations: readonly {
    readonly name: string;
    readonly driver: string;
    readonly config: Place["config"];
  }[];
}

/**
 * `npm run bench -- migrate`: migrations that are read back and verified, against no more than putting the same bytes and against the original's way,
 * one object at a time; how they grow; what they cost readers.
 */
export async function benchMigrate(parameters: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...parameters],
    options: {
      only: { type: "string", default: "speed,growth,plan,readers" },
      to: { type: "string", default: "" },
      concurrency: { type: "string", default: "auto" },
      runs: { type: "string", default: "3" },
      scale: { type: "string", default: "1" },
      markdown: { type: "boolean", default: false },
    },
  });
  const report = new Report(values.markdown);
  report.heading("migrate");
  report.list(describeMachine(`npm run bench -- migrate ${parameters.join(" ")}`));
  const servers = JSON.parse(process.env.STOWAGE_TEST_S3 ?? "[]") as readonly ({ name: string } & Place["config"])[];
  if (servers.length === 0) report.leftOut("s3: no server is named (see bench/README.md)");
  await using opened = new AsyncDisposableStack();
  const distant = await Promise.all(
    servers.flatMap(({ name, ...config }) =>
      ways.map(async (way) => {
        const { url } = opened.use(await farAway(String(config.url), way));
        return { name: `s3 (${name}, ${way.name})`, driver: "s3", config: { ...config, url } };
      }),
    ),
  );
  const rclone = findProgram("rclone");
  if (rclone === undefined) report.leftOut("rclone: not found on the search path");
  const options: Options = {
    program: compiled("migrate", join(import.meta.dirname, "one.ts")),
    rclone,
    scale: Number(values.scale),
    runs: Number(values.runs),
    concurrency: values.concurrency === "auto" ? "auto" : Number(values.concurrency),
    destinations: [
      { name: "localfs", driver: "localfs", config: {} },
      ...servers.map(({ name, ...config }) => ({ name: `s3 (${name})`, driver: "s3", config })),
      ...distant,
    ].filter(({ name }) => name.includes(values.to)),
  };
  const sections = { speed: benchSpeed, growth: benchGrowth, plan: benchPlan, readers: benchReaders };
  for (const name of values.only.split(",")) {
    const section = sections[name as keyof typeof sections];
    if (section === undefined) throw new Error(`no section ${name}: ${Object.keys(sections).join()}`);
    await section(report, options);
  }
  report.goals();
}

async function benchSpeed(report: Report, options: Options): Promise<void> {
  for (const destination of options.destinations) {
    report.subheading(`speed: db → ${destination.name}`);
    const rows = [
      [
        "load",
        "migrate",
        "raw puts",
        "rclone",
        "ratio",
        "raw moves",
        "ratio",
        "one by one",
        "faster",
        "CPU",
        "machine",
        "peak RSS",
        "raw RSS",
      ],
    ];
    for (const whole of [analyses, large]) {
      const load = scaled(whole, options.scale);
      const { ours, raw, moves, original, tool } = await compare(destination, load, options);
      const bytes = bytesOf(load);
      const share = Math.min(raw.ms, tool?.ms ?? raw.ms) / ours.ms;
      const faster = original.ms / ours.ms;
      rows.push([
        `${load.name}, ${megabytes(bytes)}`,
        rate(bytes, ours.ms),
        rate(bytes, raw.ms),
        tool === undefined ? "–" : rate(bytes, tool.ms),
        ratio(share),
        rate(bytes, moves.ms),
        ratio(moves.ms / ours.ms),
        rate(bytes, original.ms),
        ratio(faster),
        seconds(ours.cpuMs),
        `${(ours.busy * 100).toFixed(0)} %`,
        megabytes(ours.peakRssBytes),
        megabytes(raw.peakRssBytes),
      ]);
      const what = `db → ${destination.name}, ${load.name}`;
      report.goal(
        `${what}: ≥ ${goalRatio} × ${tool === undefined ? "raw puts" : "the faster of raw puts and rclone"}`,
        ratio(share),
        share >= goalRatio,
      );
      if (whole === analyses && destination.driver === "s3") {
        report.goal(`${what}: ≥ ${goalOriginal} × one by one`, ratio(faster), faster >= goalOriginal);
      }
      report.goal(`${what}: peak RSS ≤ 250 MB`, megabytes(ours.peakRssBytes), ours.peakRssBytes <= goalRssBytes);
    }
    report.table(rows);
  }
}

type Kind = "migrate" | "raw" | "raw moves" | "one by one" | "rclone";

interface Compared {
  readonly ours: Outcome;
  readonly raw: Outcome;
  /** What a move costs that is read back, by the raw clients: the ceiling of a verified one. */
  readonly moves: Outcome;
  readonly original: Outcome;
  /** What a native tool takes, where there is one. */
  readonly tool: Outcome | undefined;
}

/** Medians; all take turns at going first, each in a fresh place. */
async function compare(destination: Options["destinations"][number], load: Load, options: Options): Promise<Compared> {
  const { runs, concurrency, rclone } = options;
  const kinds: Kind[] = ["migrate", "raw", "raw moves", "one by one"];
  if (rclone !== undefined && destination.driver === "s3") kinds.push("rclone");
  const outcomes = new Map(kinds.map((kind) => [kind, [] as Outcome[]]));
  for (let run = 0; run < runs; run++) {
    for (let turn = 0; turn < kinds.length; turn++) {
      const kind = kinds[(run + turn) % kinds.length] as Kind;
      await using ground = await openGround();
      const to = await ground.fresh(destination);
      const about = { dataDirectory: ground.dataDirectory, load, concurrency, to };
      if (kind === "migrate") await runOne(options, { ...about, kind: "fill", at: database });
      if (kind === "one by one" || kind === "raw moves") await runOne(options, { ...about, kind: "fill raw" });
      const tasks: Readonly<Record<Kind, Task>> = {
        migrate: { ...about, kind: "migrate", from: database },
        raw: { ...about, kind: "raw" },
        "raw moves": { ...about, kind: "raw moves" },
        "one by one": { ...about, kind: "one by one" },
        rclone: { ...about, kind: "rclone", program: rclone ?? "" },
      };
      outcomes.get(kind)?.push(await runOne(options, tasks[kind]));
    }
  }
  const of = (kind: Kind) => middle(outcomes.get(kind) ?? []);
  return {
    ours: of("migrate"),
    raw: of("raw"),
    moves: of("raw moves"),
    original: of("one by one"),
    tool: outcomes.has("rclone") ? of("rclone") : undefined,
  };
}

async function benchGrowth(report: Report, options: Options): Promise<void> {
  report.subheading("growth: db → localfs, small documents");
  const rows = [["objects", "time", "for each", "× the first", "CPU", "peak RSS"]];
  const eachMs: number[] = [];
  const peaks: number[] = [];
  for (const count of [1000, 10_000, 100_000]) {
    const load = scaled(small(count), options.scale);
    const measured: Outcome[] = [];
    for (let run = 0; run < (count > 10_000 ? 1 : options.runs); run++) {
      await using ground = await openGround();
      const about = { dataDirectory: ground.dataDirectory, load, concurrency: options.concurrency };
      await runOne(options, { kind: "fill", at: database, ...about });
      const to = await ground.fresh({ driver: "localfs", config: {} });
      measured.push(await runOne(options, { kind: "migrate", from: database, to, ...about }));
    }
    const { ms, cpuMs, peakRssBytes } = middle(measured);
    eachMs.push(ms / load.documents);
    peaks.push(peakRssBytes);
    rows.push([
      load.documents.toLocaleString("en"),
      seconds(ms),
      `${(ms / load.documents).toFixed(3)} ms`,
      ratio(ms / load.documents / (eachMs[0] ?? 1)),
      seconds(cpuMs),
      megabytes(peakRssBytes),
    ]);
  }
  report.table(rows);
  const growth = (eachMs.at(-1) ?? 0) / (eachMs[0] ?? 1);
  report.goal("time for each object, most to fewest: linear", ratio(growth), growth <= goalGrowth);
  const peak = Math.max(...peaks);
  report.goal("peak RSS ≤ 250 MB, however many objects", megabytes(peak), peak <= goalRssBytes);
}

async function benchPlan(report: Report, options: Options): Promise<void> {
  report.subheading("plan");
  const load = scaled(small(1_000_000), options.scale);
  await using ground = await openGround();
  const about = { dataDirectory: ground.dataDirectory, load, concurrency: options.concurrency };
  await runOne(options, { kind: "pretend", at: database, ...about });
  const to = await ground.fresh({ driver: "localfs", config: {} });
  const { planMs, peakRssBytes } = await runOne(options, { kind: "plan", from: database, to, ...about });
  report.table([
    ["rows", "time", "peak RSS"],
    [load.documents.toLocaleString("en"), seconds(planMs), megabytes(peakRssBytes)],
  ]);
  report.goal("1,000,000 rows planned in ≤ 30 s", seconds(planMs), planMs <= goalPlanMs);
}

async function benchReaders(report: Report, options: Options): Promise<void> {
  for (const destination of options.destinations) {
    report.subheading(`readers: db → ${destination.name}, online`);
    const load = scaled(analyses, options.scale);
    await using ground = await openGround();
    const to = await ground.fresh(destination);
    const about = { dataDirectory: ground.dataDirectory, load, concurrency: options.concurrency };
    await runOne(options, { kind: "fill", at: database, ...about });
    const reading = { kind: "read", places: [database, to], ...about } as const;
    const readMs = 20_000 * Math.max(options.scale, 0.1);
    const before = await runOne(options, { ...reading, readMs });
    const readers = start(options, reading);
    const moved = await runOne(options, { kind: "migrate online", from: database, to, ...about });
    readers.stdin?.end();
    const busy = await outcomeOf(readers);
    // Before, all is read at one place, and afterwards at the other, which may be farther away.
    const after = await runOne(options, { ...reading, readMs });
    const factor = busy.p99Ms / Math.max(before.p99Ms, after.p99Ms);
    report.table([
      ["readers", "reads", "p50", "p99", "× idle", "migration", "peak RSS"],
      ["idle, before", `${before.reads}`, milliseconds(before.p50Ms), milliseconds(before.p99Ms), "", "", ""],
      [
        "while it runs",
        `${busy.reads}`,
        milliseconds(busy.p50Ms),
        milliseconds(busy.p99Ms),
        ratio(factor),
        seconds(moved.ms),
        megabytes(moved.peakRssBytes),
      ],
      ["idle, afterwards", `${after.reads}`, milliseconds(after.p50Ms), milliseconds(after.p99Ms), "", "", ""],
    ]);
    const what = `db → ${destination.name}: p99 of reads ≤ ${goalReaders} × idle`;
    report.goal(what, ratio(factor), factor <= goalReaders);
  }
}

interface Ground extends AsyncDisposable {
  readonly dataDirectory: string;
  /** A place of which nothing is used yet, made. */
  fresh(destination: Place): Promise<Place>;
}

/** A directory and a database server for a few processes, one after the other. */
async function openGround(): Promise<Ground> {
  await using opening = new AsyncDisposableStack();
  const directory = opening.use(await temporaryDirectory());
  // As root, the embedded server is another user.
  await chmod(directory.path, 0o755);
  const dataDirectory = join(directory.path, "database");
  // While it is open the server runs: starting it is nobody's work.
  opening.use(await openDatabase({ kind: "embedded", dataDirectory }, { connectionsMax: 1 }, call));
  const opened = opening.move();
  return {
    dataDirectory,
    async fresh({ driver, config }) {
      const bucket = `bench-${Date.now().toString(36)}`;
      const own = { localfs: { archive_data_dir: join(directory.path, "files") }, s3: { bucket, create_bucket: true } };
      const place: Place = { driver, config: { ...config, ...own[driver as keyof typeof own] } };
      await make(dataDirectory, place);
      if (driver === "s3") opened.defer(() => removeBucket(place.config));
      return place;
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function start({ program: [file = "", ...parameters] }: Options, task: Task): ChildProcess {
  return spawn(file, [...parameters, JSON.stringify(task)], { stdio: ["pipe", "pipe", "inherit"] });
}

async function runOne(options: Options, task: Task): Promise<Outcome> {
  return await outcomeOf(start(options, task));
}

async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  if (child.stdout === null) throw new Error("the child says nothing");
  const ended = new Promise<number | null>((resolve, reject) => child.once("error", reject).once("close", resolve));
  const output = await text(child.stdout);
  if ((await ended) !== 0) throw new Error("a task failed: see above");
  return JSON.parse(output) as Outcome;
}

function middle(outcomes: readonly Outcome[]): Outcome {
  const of = (name: keyof Outcome) => median(outcomes.map((outcome) => outcome[name]));
  return {
    ms: of("ms"),
    planMs: of("planMs"),
    cpuMs: of("cpuMs"),
    busy: of("busy"),
    peakRssBytes: of("peakRssBytes"),
    reads: of("reads"),
    p50Ms: of("p50Ms"),
    p99Ms: of("p99Ms"),
  };
}

function rate(bytes: number, ms: number): string {
  return `${(bytes / 1e3 / ms).toFixed(1)} MB/s`;
}
