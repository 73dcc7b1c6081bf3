/**
 * Kills analyses and looks at what is left: `npm run test:kill -- [--runs N] [--seed S] [--lanes N] [--only RUN]`.
 *
 * Each run is a real command on a fresh data directory. It is killed with SIGKILL at a step that it announces or at a random time; in a third of the
 * runs the embedded server and all its processes are killed with it, or instead of it. Whatever was killed: the image is there whole or not at all,
 * a second analysis gives the same bytes as one that nobody disturbed, nothing is lost and nothing is left over. A seed gives the same plan each
 * time; where exactly a random time falls is the machine's business.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeKillImage } from "./image.ts";
import { analyzeAndRead, type Content, inspect, prepare } from "./inspect.ts";
import { killServer } from "./victims.ts";

const { values: flags } = parseArgs({
  options: {
    runs: { type: "string", default: "200" },
    seed: {
      type: "string",
      default: String(createHash("sha256").update(String(process.hrtime.bigint())).digest().readUInt32BE()),
    },
    lanes: { type: "string", default: String(Math.min(4, availableParallelism())) },
    only: { type: "string" },
  },
});
const main = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
const preload = join(import.meta.dirname, "preload.ts");
const commandTimeoutMs = 120_000;

type Victim = "command" | "server" | "both";

/** What is done to one command. */
interface Plan {
  readonly run: number;
  readonly victim: Victim;
  readonly at: { readonly step: number } | { readonly ms: number; readonly from: "start" | "firstStep" };
}

/** What a command does when nobody disturbs it. */
interface Undisturbed {
  readonly content: Content;
  readonly steps: readonly string[];
  readonly durationMs: number;
  /** From its first step on: without the start of Node and of the server. */
  readonly workMs: number;
}

/** Even runs are killed at a step: each step in its turn, in an order of the seed's. Odd ones at a time, half of them after the first step. */
function planOf(run: number, { steps, durationMs, workMs }: Undisturbed): Plan {
  const random = drawn("run", run);
  // Two thirds: the command alone. The rest: half with its server, half the server alone.
  const victims = ["command", "command", "command", "command", "both", "server"] as const;
  const victim = victims[random.readUInt32BE(0) % victims.length] as Victim;
  if (run % 2 === 0) {
    const order = steps.map((_, index) => ({ step: index + 1, rank: drawn("step", index).readUInt32BE() }));
    order.sort((one, other) => one.rank - other.rank);
    return { run, victim, at: { step: order[(run / 2) % order.length]?.step ?? 1 } };
  }
  const fraction = random.readUInt32BE(4) / 2 ** 32;
  const from = random.readUInt32BE(8) % 2 === 0 ? "start" : "firstStep";
  return { run, victim, at: { ms: Math.floor(fraction * (from === "start" ? durationMs : workMs) * 1.1), from } };
}

/** Random bytes that depend on nothing but the seed. */
function drawn(what: string, number: number): Buffer {
  return createHash("sha256").update(`${flags.seed} ${what} ${number}`).digest();
}

interface CommandEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

function startCommand(source: string, dataDirectory: string, environment: NodeJS.ProcessEnv): ChildProcess {
  return spawn(process.execPath, ["--import", preload, main, "analyze", source, "--data-dir", dataDirectory], {
    env: {
      PATH: process.env.PATH,
      HOME: "/nonexistent",
      TMPDIR: tmpdir(),
      KILL_DATA_DIRECTORY: dataDirectory,
      ...environment,
    },
    // The fourth is where the preload says that the first step has come.
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
}

function end(child: ChildProcess): Promise<CommandEnd> {
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const timeout = setTimeout(() => child.kill("SIGKILL"), commandTimeoutMs);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    // Not `close`: a killed command's server still has its standard error, if it ever gets it.
    child.once("exit", (code, signal) => {
      clearTimeout(timeout);
      resolve({ code, signal, stderr });
    });
  });
}

interface Outcome {
  readonly label: string;
  readonly violations: readonly string[];
}

class KillTest implements Disposable {
  readonly #scratch = mkdtempSync(join(tmpdir(), "stowage-kill-"));
  readonly #prepared = join(this.#scratch, "prepared");
  readonly #source: string;
  #isKept = false;

  constructor() {
    // The embedded server is another user's when root runs this.
    chmodSync(this.#scratch, 0o755);
    const layout = join(this.#scratch, "layout");
    mkdirSync(layout);
    this.#source = writeKillImage(layout);
  }

  [Symbol.dispose](): void {
    if (!this.#isKept) rmSync(this.#scratch, { recursive: true, force: true });
  }

  async undisturbed(): Promise<Undisturbed> {
    await prepare(this.#prepared, tmpdir());
    const dataDirectory = this.#copy("undisturbed");
    const stepsFile = join(this.#scratch, "steps");
    const begun = performance.now();
    const child = startCommand(this.#source, dataDirectory, { KILL_STEPS_FILE: stepsFile });
    let workBegun = begun;
    child.stdio[3]?.once("data", () => {
      workBegun = performance.now();
    });
    const { code, stderr } = await end(child);
    const durationMs = performance.now() - begun;
    const workMs = performance.now() - workBegun;
    if (code !== 0) throw new Error(`the undisturbed command failed: ${stderr}`);
    // Read in another process than it was written in, and analysed once more.
    const content = await analyzeAndRead(dataDirectory, this.#source, tmpdir());
    rmSync(dataDirectory, { recursive: true });
    return { content, durationMs, workMs, steps: readFileSync(stepsFile, "utf8").trimEnd().split("\n") };
  }

  async run(plan: Plan, undisturbed: Undisturbed): Promise<Outcome> {
    const dataDirectory = this.#copy(`run-${plan.run}`);
    const violations: string[] = [];
    let label = "lost";
    try {
      const ended = await this.#disturb(plan, dataDirectory);
      if (plan.victim === "server" && ended.signal !== null)
        violations.push(`the command did not end by itself: ${ended.signal}`);
      const aftermath = await inspect(dataDirectory, this.#source, tmpdir(), undisturbed.content);
      violations.push(...aftermath.violations);
      // What a command says it has done must be there after any crash.
      if (ended.code === 0 && !aftermath.wasThere)
        violations.push("the command said it was done, and the image is not there");
      const state = aftermath.wasThere ? "whole image" : aftermath.layers > 0 ? "some layers, no image" : "nothing";
      label = `${ended.signal === "SIGKILL" ? "killed" : ended.code === 0 ? "finished" : "failed"}: ${state}`;
    } catch (error) {
      violations.push(error instanceof Error ? `${error.stack} ${JSON.stringify(error)}` : String(error));
    }
    if (violations.length === 0) rmSync(dataDirectory, { recursive: true });
    else this.#isKept = true;
    return { label, violations };
  }

  async #disturb({ at, victim }: Plan, dataDirectory: string): Promise<CommandEnd> {
    if ("step" in at) {
      return end(startCommand(this.#source, dataDirectory, { KILL_AT_STEP: String(at.step), KILL_VICTIM: victim }));
    }
    const child = startCommand(this.#source, dataDirectory, {});
    let timer: NodeJS.Timeout | undefined;
    const begin = () => {
      timer = setTimeout(() => {
        if (victim !== "server") child.kill("SIGKILL");
        if (victim !== "command") killServer(dataDirectory);
      }, at.ms);
    };
    if (at.from === "start") begin();
    else child.stdio[3]?.once("data", begin);
    try {
      return await end(child);
    } finally {
      clearTimeout(timer);
    }
  }

  #copy(name: string): string {
    const copy = join(this.#scratch, name);
    // `cp`, since it keeps owners: as root, the cluster is another user's.
    execFileSync("cp", ["-a", "--reflink=auto", this.#prepared, copy]);
    return copy;
  }
}

if (process.platform !== "linux")
  throw new Error("the kill tests find the server's processes in /proc: they need Linux");
using test = new KillTest();
const undisturbed = await test.undisturbed();
const total = Number(flags.runs);
console.log(
  `seed ${flags.seed}, ${total} runs; undisturbed: ${undisturbed.steps.length} steps, ${Math.round(undisturbed.durationMs)} ms, ${Math.round(undisturbed.workMs)} of them work`,
);

const plans = (flags.only === undefined ? Array.from({ length: total }, (_, run) => run) : [Number(flags.only)]).map(
  (run) => planOf(run, undisturbed),
);
const outcomes = new Map<string, number>();
let failed = 0;
await Promise.all(
  Array.from({ length: Number(flags.lanes) }, async () => {
    for (let plan = plans.shift(); plan; plan = plans.shift()) {
      const { label, violations } = await test.run(plan, undisturbed);
      const when = "step" in plan.at ? "at a step" : "at a time";
      const what = `${plan.victim} ${when}, ${label}`;
      outcomes.set(what, (outcomes.get(what) ?? 0) + 1);
      if (violations.length === 0) continue;
      failed++;
      const place =
        "step" in plan.at ? `step ${plan.at.step} (${undisturbed.steps[plan.at.step - 1]})` : `${plan.at.ms} ms`;
      console.log(`VIOLATION in run ${plan.run}: ${plan.victim} killed at ${place}; ${label}`);
      for (const violation of violations) console.log(`  ${violation}`);
    }
  }),
);
for (const [what, count] of [...outcomes].toSorted()) console.log(`${String(count).padStart(5)}  ${what}`);
console.log(
  failed === 0
    ? `seed ${flags.seed}: no violation in ${total} runs`
    : `seed ${flags.seed}: ${failed} runs with violations`,
);
if (failed > 0) process.exitCode = 1;
