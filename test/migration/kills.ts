import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { sql } from "kysely";
import { createCall, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { createRandom, type SeededRandom } from "../fault/random.ts";
import { bodyOf, contentOf } from "../storm/contents.ts";
import { refOf } from "./deeds.ts";
import { type Bucket, readEverything } from "./independent-reader.ts";
import type { CrowdLine, CrowdTask } from "./kill-crowd.ts";
import type { MoverLine, MoverTask } from "./kill-mover.ts";
import { type Opened, openAt, type RealPlace } from "./real-places.ts";

export interface KillsOptions {
  readonly seed: number;
  readonly kills: number;
  /** Servers, one after the other a stop on the way; without any, objects go to and fro between database and files. */
  readonly servers: readonly Omit<Bucket, "bucket">[];
  readonly note: (line: string) => void;
}

export interface KillsResult {
  readonly killed: number;
  /** Migrations that came to their end. */
  readonly migrations: number;
  readonly withCompany: number;
  /** Kills after which it was left for longer than any grace period and lease. */
  readonly left: number;
  /** How often each step was the last. */
  readonly lastSteps: ReadonlyMap<string, number>;
  readonly violations: readonly string[];
}

const call = createCall();
const objects = 24;
/** Most lives of a migration go through more steps. */
const stepsMax = 70;
/** About as long as one works. */
const workMs = 250;
const livesMax = 30;

/** Migrations between real backends in processes that are killed, with company in half of them, each resumed until it is complete and then judged. */
export async function runKills(options: KillsOptions): Promise<KillsResult> {
  await using ground = await Ground.open(options);
  return await ground.run();
}

class Ground implements AsyncDisposable {
  readonly #options: KillsOptions;
  readonly #root: string;
  readonly #places: readonly RealPlace[];
  readonly #opened: Opened;
  readonly #cleanUp: AsyncDisposableStack;
  readonly #random: SeededRandom;
  readonly #possible = new Map<string, ReadonlySet<string>>();
  readonly #lastSteps = new Map<string, number>();
  #killed = 0;
  #migrations = 0;
  #withCompany = 0;
  #left = 0;
  #serial = 0;
  #violations: string[] = [];

  private constructor(
    options: KillsOptions,
    root: string,
    places: readonly RealPlace[],
    opened: Opened,
    cleanUp: AsyncDisposableStack,
  ) {
    this.#options = options;
    this.#root = root;
    this.#places = places;
    this.#opened = opened;
    this.#cleanUp = cleanUp;
    this.#random = createRandom(options.seed);
  }

  static async open(options: KillsOptions): Promise<Ground> {
    await using opening = new AsyncDisposableStack();
    const root = mkdtempSync(join(tmpdir(), "stowage-migration-kills-"));
    opening.defer(() => rmSync(root, { recursive: true, force: true }));
    // As root, the embedded server is another user.
    chmodSync(root, 0o755);
    const directory = join(root, "files");
    mkdirSync(directory);
    const name = `stowage-kills-${Date.now().toString(36)}`;
    const buckets = options.servers.map((server, index): RealPlace => {
      const { url, access_key, secret_key } = server;
      return { driver: "s3", config: { url, access_key, secret_key, bucket: `${name}-${index}`, create_bucket: true } };
    });
    const files: RealPlace = { driver: "localfs", config: { archive_data_dir: directory } };
    const places: readonly RealPlace[] = [{ driver: "db", config: {} }, ...buckets, files];
    const opened = opening.use(await openAt(join(root, "database"), places, call));
    return new Ground(options, root, places, opened, opening.move());
  }

  async run(): Promise<KillsResult> {
    try {
      await this.#fill();
      for (let leg = 0; this.#killed < this.#options.kills && this.#violations.length === 0; leg++) {
        const [from, to] = [leg, leg + 1].map((at) => this.#places[at % this.#places.length]) as [RealPlace, RealPlace];
        await this.#migrate(from, to);
      }
    } catch (error) {
      this.#violations.push(`unexpected: ${(error as Error).stack}`);
    }
    return {
      killed: this.#killed,
      migrations: this.#migrations,
      withCompany: this.#withCompany,
      left: this.#left,
      lastSteps: this.#lastSteps,
      violations: this.#violations,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanUp[Symbol.asyncDispose]();
  }

  async #fill(): Promise<void> {
    const { database, store } = this.#opened;
    for (let index = 0; index < objects; index++) {
      const name = `one/${index % 5 === 0 ? "analysis_archive" : "b"}/${index}`;
      const content = contentOf(++this.#serial, index === 0 ? 2_500_000 : index < 4 ? 300_000 : index * 300);
      const staged = await store.stage(refOf(name), bodyOf(content, true), call);
      await database.transaction((tx) => store.publish(tx, [staged]), call);
      this.#possible.set(name, new Set([content.digest]));
    }
  }

  async #migrate(from: RealPlace, to: RealPlace): Promise<void> {
    const hasCompany = this.#random.next() < 0.5;
    const isOnline = this.#random.next() < (hasCompany ? 0.6 : 0.2);
    const verify = this.#random.next() < 0.8 ? "readback" : "checksum";
    const task: MoverTask = { from, to, places: this.#places, isOnline, verify };
    const what = `${from.driver} → ${to.driver}${isOnline ? ", online" : ""}${hasCompany ? ", with company" : ""}`;
    const crowd = hasCompany ? this.#startCrowd(isOnline ? from : to, isOnline) : undefined;
    let kills = 1 + this.#random.integer(8);
    const begun = performance.now();
    for (let lives = 0; ; lives++) {
      if (lives === livesMax) {
        this.#violations.push(`${what}: it does not come to its end`);
        break;
      }
      if (kills === 0) await crowd?.stop();
      const { line, errors } = await this.#life(task, kills-- > 0);
      if (line === "killed") {
        // Not while somebody reads: no read lasts so long.
        if (!(hasCompany && isOnline)) await this.#afterKill();
        continue;
      }
      if (line === "complete") break;
      if (errors !== "") {
        this.#violations.push(`${what}: it fails: ${errors}`);
        break;
      }
      await this.#endLeases(crowd);
    }
    await crowd?.stop();
    this.#violations.push(...(crowd?.violations ?? []));
    await this.#judge(what, from, to, isOnline || !hasCompany);
    this.#migrations++;
    if (hasCompany) this.#withCompany++;
    this.#options.note(`${what}: ${this.#killed} killed so far, ${Math.round(performance.now() - begun)} ms`);
  }

  async #life(task: MoverTask, isToBeKilled: boolean): Promise<{ readonly line: string; readonly errors: string }> {
    const isAtStep = this.#random.next() < 0.67;
    const drawn = this.#random.next();
    const killAtStep = isToBeKilled && isAtStep ? { killAtStep: 1 + Math.floor(drawn ** 2 * stepsMax) } : {};
    const child = this.#spawn("kill-mover.ts", { ...task, ...killAtStep });
    let timer: NodeJS.Timeout | undefined;
    child.stdout?.once("data", () => {
      if (isToBeKilled && !isAtStep) timer = setTimeout(() => child.kill("SIGKILL"), drawn * workMs);
    });
    const { signal, output, errors } = await endOf(child);
    clearTimeout(timer);
    const lines = linesOf<MoverLine>(output);
    if (signal !== "SIGKILL") {
      const last = lines.at(-1);
      return { line: last !== undefined && "state" in last ? last.state : "failed", errors };
    }
    this.#killed++;
    const last = lines.at(-1);
    const step = last === undefined ? "none" : "step" in last ? last.step : "the end";
    this.#lastSteps.set(step, (this.#lastSteps.get(step) ?? 0) + 1);
    return { line: "killed", errors };
  }

  /** Now and then left for longer than any grace period and lease, with the reaper at work. */
  async #afterKill(): Promise<void> {
    if (this.#random.next() >= 0.15) return;
    this.#left++;
    await this.#reapAll();
  }

  /** A writer that was killed holds its place until its lease ends: time passes. */
  async #endLeases(crowd: Crowd | undefined): Promise<void> {
    if (crowd !== undefined && !crowd.isOver) return;
    await sql`update locations set lease_until = now() - interval '1 second'
      where state = 'pending' and migration_id is null`.execute(this.#opened.database.sql);
  }

  async #reapAll(): Promise<void> {
    const { database, store } = this.#opened;
    for (let pass = 0; pass < 2; pass++) {
      await sql`update locations set state_since = state_since - interval '2 days', lease_until = lease_until - interval '2 days',
        proven_at = proven_at - interval '2 days' where state <> 'live'`.execute(database.sql);
      for (;;) {
        const { isMoreLeft, failures } = await store.reap(500, call);
        for (const { backend, error } of failures)
          this.#violations.push(`the reaper fails at ${backend}: ${error.stack}`);
        if (!isMoreLeft || failures.length > 0) break;
      }
    }
  }

  async #judge(what: string, from: RealPlace, to: RealPlace, isStrict: boolean): Promise<void> {
    await this.#waitForSessions();
    await this.#endLeases(undefined);
    await this.#reapAll();
    const buckets = this.#places.flatMap(({ driver, config }) =>
      driver === "s3" ? [config as unknown as Bucket] : [],
    );
    const found = await readEverything(join(this.#root, "database"), [join(this.#root, "files")], buckets);
    const wrong = [...found.violations];
    for (const name of new Set([...this.#possible.keys(), ...found.objects.keys()])) {
      const is = found.objects.get(name);
      const possible = this.#possible.get(name) ?? new Set(["absent"]);
      if (!possible.has(is?.digest ?? "absent"))
        wrong.push(`${name} is ${is?.digest ?? "absent"}, not ${[...possible]}`);
      if (is !== undefined && isStrict && is.place === nameOf(from) && from !== to)
        wrong.push(`${name} is still at ${is.place}`);
      this.#possible.set(name, new Set([is?.digest ?? "absent"]));
    }
    const begin = () => silentProgress.begin("", undefined);
    const report = await this.#opened.store.scrub(
      { share: 1, restart: true, seed: 1, clock: systemClock, begin },
      call,
    );
    const isClean = report.damaged === 0 && report.findings.length === 0 && report.failures.length === 0;
    if (!isClean) wrong.push(`a scrub finds ${JSON.stringify(report)}`);
    this.#violations.push(...wrong.map((each) => `${what}: ${each}`));
  }

  #startCrowd(target: RealPlace, reads: boolean): Crowd {
    const known = [...this.#possible].flatMap(([name, values]) => [...values].map((value) => [name, value] as const));
    this.#serial += 100_000;
    const task: CrowdTask = {
      places: [target, ...this.#places],
      seed: this.#random.integer(2 ** 31),
      firstSerial: this.#serial,
      objects: Object.fromEntries(known.filter(([, value]) => value !== "absent")),
      reads,
    };
    return new Crowd(this.#spawn("kill-crowd.ts", task), this.#random.next() < 0.3, this.#possible);
  }

  #spawn(program: string, task: unknown): ChildProcess {
    const parameters = [join(import.meta.dirname, program), join(this.#root, "database"), JSON.stringify(task)];
    return spawn(process.execPath, parameters, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_COMPILE_CACHE: join(this.#root, "compiled") },
    });
  }

  /** What a killed process sent last is still done by the server: nothing arrives later than this. Our own sessions are idle. */
  async #waitForSessions(): Promise<void> {
    for (;;) {
      const { rows } = await sql`select 1 from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid() and state <> 'idle'`.execute(
        this.#opened.database.sql,
      );
      if (rows.length === 0) return;
    }
  }
}

/** Who writes, deletes and reads meanwhile; what it says that it has done is done. */
class Crowd {
  readonly #child: ChildProcess;
  readonly #isKilled: boolean;
  readonly #ended: Promise<void>;
  readonly violations: string[] = [];
  isOver = false;

  constructor(child: ChildProcess, isKilled: boolean, possible: Map<string, ReadonlySet<string>>) {
    this.#child = child;
    this.#isKilled = isKilled;
    this.#ended = endOf(child).then(({ output, errors, code, signal }) => {
      this.isOver = true;
      if (signal === null && code !== 0) this.violations.push(`the company fails: ${errors}`);
      let open: { readonly intend: string; readonly value: string } | undefined;
      let before: ReadonlySet<string> = new Set();
      for (const line of linesOf<CrowdLine>(output)) {
        if ("violation" in line) this.violations.push(line.violation);
        else if ("intend" in line) {
          open = line;
          before = possible.get(line.intend) ?? new Set(["absent"]);
          possible.set(line.intend, new Set([...before, line.value]));
        } else if (open !== undefined) {
          possible.set(open.intend, line.done ? new Set([open.value]) : before);
          open = undefined;
        }
      }
    });
  }

  async stop(): Promise<void> {
    if (!this.isOver) this.#child.kill(this.#isKilled ? "SIGKILL" : "SIGTERM");
    await this.#ended;
  }
}

async function endOf(child: ChildProcess) {
  const ended = new Promise<{ signal: NodeJS.Signals | null; code: number | null }>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  const streams = [child.stdout, child.stderr].map((stream) => (stream === null ? "" : text(stream)));
  const [end, output = "", errors = ""] = [await ended, ...(await Promise.all(streams))];
  return { ...end, output, errors };
}

function linesOf<T>(output: string): readonly T[] {
  return output
    .split("\n")
    .filter((line) => line.endsWith("}"))
    .map((line) => JSON.parse(line) as T);
}

/** As the independent reader names it. */
function nameOf({ driver, config }: RealPlace): string {
  const { bucket, archive_data_dir: directory } = config as Readonly<Record<string, string>>;
  return driver === "db" ? "db" : driver === "s3" ? `s3 ${bucket}` : `localfs ${directory}`;
}
