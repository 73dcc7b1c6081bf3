import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { type Database, openDatabase } from "../../src/db/index.ts";
import { openObjectStore } from "../../src/objects/index.ts";
import { createCall, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { type Finding, readIndependently } from "./independent-reader.ts";
import type { Line } from "./kill-script.ts";
import { killSections } from "./kill-sections.ts";
import { Model } from "./model.ts";
import type { VictimOptions } from "./victim.ts";

const call = createCall();
const victim = join(import.meta.dirname, "victim.ts");
const hook = join(import.meta.dirname, "plant-hook.ts");

export interface RunOptions extends VictimOptions {
  readonly plant?: string;
  /** Killed from outside so long after its first step. */
  readonly killAfterMs?: number;
}

export interface Ended {
  readonly lines: readonly Line[];
  readonly signal: NodeJS.Signals | null;
  readonly code: number | null;
  readonly errors: string;
}

/** A database and a directory that victims leave in whatever state, one server for all of them, and a model of what must be there. */
export class KillGround implements AsyncDisposable {
  readonly #root: string;
  readonly #database: Database;
  readonly #opened: AsyncDisposableStack;
  /** Server processes of this one's own connections: one for statements, one for locks. */
  #ownSessions: readonly number[] = [];
  model = new Model();
  #deeds = 0;

  private constructor(root: string, database: Database, opened: AsyncDisposableStack) {
    this.#root = root;
    this.#database = database;
    this.#opened = opened;
  }

  static async open(): Promise<KillGround> {
    await using opening = new AsyncDisposableStack();
    const root = mkdtempSync(join(tmpdir(), "stowage-kills-"));
    opening.defer(() => rmSync(root, { recursive: true, force: true }));
    // As root, the embedded server is another user.
    chmodSync(root, 0o755);
    mkdirSync(join(root, "files"));
    const location = { kind: "embedded", dataDirectory: join(root, "database") } as const;
    const database = opening.use(await openDatabase(location, { connectionsMax: 1 }, call));
    const ground = new KillGround(root, database, opening.move());
    ground.#ownSessions = await ground.#sessions();
    // One that ends by itself writes down what Node has compiled: all others start four times as fast.
    await ground.run({ deeds: [] });
    return ground;
  }

  get files(): string {
    return join(this.#root, "files");
  }

  get database(): Database {
    return this.#database;
  }

  /** Runs a victim to its end, and tells the model what it has said. */
  async run({ plant, killAfterMs, ...options }: RunOptions): Promise<Ended> {
    const planted = plant === undefined ? [] : ["--import", hook];
    const child = spawn(
      process.execPath,
      [...planted, victim, join(this.#root, "database"), this.#root, JSON.stringify(options)],
      {
        stdio: ["ignore", "pipe", "pipe"],
        env: {
          ...process.env,
          ...(plant === undefined ? { NODE_COMPILE_CACHE: join(this.#root, "compiled") } : { STORM_PLANT: plant }),
        },
      },
    );
    let timer: NodeJS.Timeout | undefined;
    child.stdout.once("data", () => {
      if (killAfterMs !== undefined) timer = setTimeout(() => child.kill("SIGKILL"), killAfterMs);
    });
    const [{ signal, code }, output, errors] = await Promise.all([
      endOf(child),
      buffer(child.stdout),
      buffer(child.stderr),
    ]);
    clearTimeout(timer);
    // What it sent last is still done by the server: nothing arrives later than this.
    await this.#waitForSessions();
    const lines = output
      .toString()
      .split("\n")
      .filter((line) => line.endsWith("}"))
      .map((line) => JSON.parse(line) as Line);
    this.#hear(lines);
    return { lines, signal, code, errors: errors.toString() };
  }

  /** What of it must not be. After `cleanUp`, nothing but what lives may be left. */
  async violations(isReaped: boolean): Promise<readonly string[]> {
    const finding = await readIndependently(this.#database, { directories: [this.files], isReaped });
    return [...finding.violations, ...this.#compare(finding)];
  }

  /** Leases are over, and everything goes that can. */
  async cleanUp(): Promise<readonly string[]> {
    await sql`update locations set lease_until = now() - interval '1 second' where state = 'pending'`.execute(
      this.#database.sql,
    );
    await using store = await openObjectStore({
      database: this.#database,
      sections: killSections(this.files),
      retireGraceSeconds: 0,
      lateSeconds: 0,
    });
    for (;;) {
      const { isMoreLeft, failures } = await store.reap(100, call);
      if (failures.length > 0) return failures.map(({ backend, error }) => `the reaper fails at ${backend}: ${error}`);
      if (!isMoreLeft) break;
    }
    const begin = () => silentProgress.begin("", undefined);
    const report = await store.scrub({ share: 1, restart: true, seed: 1, clock: systemClock, begin }, call);
    const isClean = report.damaged === 0 && report.findings.length === 0 && report.failures.length === 0;
    const found = isClean ? [] : [`a scrub finds ${JSON.stringify(report)}`];
    return [...found, ...(await this.violations(true))];
  }

  /** As if nothing had been there. */
  async reset(): Promise<void> {
    await sql`truncate scrubs, scrub_findings, objects, locations, backends, object_chunks, object_blobs cascade`.execute(
      this.#database.sql,
    );
    rmSync(this.files, { recursive: true, force: true });
    mkdirSync(this.files);
    this.model = new Model();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened[Symbol.asyncDispose]();
  }

  #compare({ objects }: Finding): string[] {
    const seen = new Map(
      [...new Set([...this.model.names, ...objects.keys()])].map((name) => [name, objects.get(name) ?? "absent"]),
    );
    try {
      this.model.judge();
      this.model.settle(seen);
      return [];
    } catch (error) {
      return [(error as Error).message];
    }
  }

  /** What was done is done; of what was only begun, the server may have done it. */
  #hear(lines: readonly Line[]): void {
    let open: ReturnType<Model["intend"]> = [];
    for (const line of lines) {
      if ("intend" in line) {
        open = this.model.intend(++this.#deeds, new Map(Object.entries(line.intend)));
        for (const write of open) write.fate = "unknown";
      }
      if (!("done" in line)) continue;
      for (const write of open) write.fate = "done";
      open = [];
      // One after the other: the next is judged from here.
      this.model.judge();
      this.model.step();
    }
  }

  async #waitForSessions(): Promise<void> {
    while ((await this.#sessions()).some((pid) => !this.#ownSessions.includes(pid))) {
      // asked again
    }
  }

  async #sessions(): Promise<readonly number[]> {
    const { rows } = await sql<{ pid: number }>`select pid from pg_stat_activity
      where backend_type = 'client backend'`.execute(this.#database.sql);
    return rows.map(({ pid }) => pid);
  }
}

function endOf(child: ChildProcess): Promise<{ signal: NodeJS.Signals | null; code: number | null }> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
}
