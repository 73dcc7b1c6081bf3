import { isDeepStrictEqual } from "node:util";
import { sql } from "kysely";
import { isCode, messageOf, StowageError } from "../../src/errors/index.ts";
import type { ObjectRef, ReapReport } from "../../src/objects/index.ts";
import { createCall, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { createRandom } from "../fault/random.ts";
import { Doer } from "./deeds.ts";
import { readIndependently } from "./independent-reader.ts";
import { Model, Violation } from "./model.ts";
import { type Batch, type Interlude, type Operation, planOf } from "./plan.ts";
import { World, type WorldOptions } from "./world.ts";

export interface StormOptions extends WorldOptions {
  readonly operations: number;
  readonly tell: (line: string) => void;
}

export interface StormResult {
  readonly operations: number;
  /** By what they were and how they ended. */
  readonly outcomes: ReadonlyMap<string, number>;
  readonly faults: number;
  readonly objects: number;
  /** What went wrong that never may, and what had been done before. */
  readonly violation: { readonly reason: string; readonly history: readonly string[] } | undefined;
}

const call = createCall();
/** Without faults, jumps of the clock and lost sessions. Other codes may come from a machine that is slow. */
const neverInCalm = [
  "BACKEND_KEY_MISSING",
  "BACKEND_FOREIGN",
  "BACKEND_FULL",
  "BACKEND_DENIED",
  "OBJECT_DIGEST_MISMATCH",
  "OBJECT_LEASE_LOST",
  "DB_FAILED",
] as const;
const historyMax = 60;
const looksMax = 30;
/** In batches. */
const tellEvery = 200;
/** Ends what hangs, on the slowest machine too. */
const batchTimeoutMs = 180_000;

/** Seeded operations with faults against a model. The same seed gives the same plan; how they mix in time is the machine's business. */
export async function runStorm(options: StormOptions): Promise<StormResult> {
  await using world = await World.open(options);
  return await new Storm(world, options).run();
}

class Storm {
  readonly #world: World;
  readonly #options: StormOptions;
  readonly #model = new Model();
  readonly #doer: Doer;
  readonly #history: string[] = [];
  readonly #outcomes = new Map<string, number>();
  #operations = 0;
  #faults = 0;
  #isCalm = false;

  constructor(world: World, options: StormOptions) {
    this.#world = world;
    this.#options = options;
    this.#doer = new Doer(world, this.#model);
  }

  async run(): Promise<StormResult> {
    let violation: StormResult["violation"];
    try {
      let number = 0;
      for (const batch of planOf(createRandom(this.#options.seed), this.#options.operations)) {
        await this.#batch(batch);
        if (++number % 25 === 0) await this.#compare(false);
        if (number % tellEvery === 0) this.#options.tell(`${this.#operations} operations, ${this.#faults} faults`);
      }
      await this.#end();
    } catch (error) {
      const reason = error instanceof Violation ? error.message : `unexpected: ${(error as Error)?.stack ?? error}`;
      violation = { reason, history: this.#history };
    }
    return {
      operations: this.#operations,
      outcomes: this.#outcomes,
      faults: this.#faults,
      objects: this.#model.names.filter((name) => !this.#model.possible(name).has("absent")).length,
      violation,
    };
  }

  async #batch({ interlude, isStormy, operations }: Batch): Promise<void> {
    if (interlude !== undefined) await this.#interlude(interlude);
    this.#world.setWeather(isStormy);
    const isDisturbed = operations.some(({ kind }) => ["cut", "jump", "expire"].includes(kind));
    this.#isCalm = !isStormy && !isDisturbed;
    const working = Promise.all(operations.map((operation) => this.#do(operation)));
    await ended(working, () => `hangs: one of ${operations.map(describe).join("; ")}`);
    this.#world.setWeather(false);
    const faults = this.#world.weather.log.splice(0);
    this.#faults += faults.length;
    this.#note(...faults.map((fault) => `      ${fault}`));
    const written = this.#model.judge();
    const seen = new Map<string, string>();
    for (const name of written) seen.set(name, await this.#look(name));
    this.#model.settle(seen);
    await this.#expectOrder();
  }

  async #do(operation: Operation): Promise<void> {
    let outcome = "done";
    try {
      await this.#doer.do(operation);
    } catch (error) {
      outcome = error instanceof StowageError ? error.code : messageOf(error);
      if (error instanceof TypeError) throw error;
      if (this.#isCalm && isCode(error, ...neverInCalm)) {
        throw new Violation(`${describe(operation)} fails though nothing is wrong: ${error.stack}`);
      }
    }
    this.#operations++;
    this.#note(`${describe(operation)}: ${outcome}`);
    const what = `${operation.kind}: ${outcome}`;
    this.#outcomes.set(what, (this.#outcomes.get(what) ?? 0) + 1);
  }

  async #interlude(interlude: Interlude): Promise<void> {
    this.#note(`   ${JSON.stringify(interlude)}`);
    switch (interlude.kind) {
      case "reopen":
        return await patiently(() => this.#world.reopen(interlude.configuration));
      case "jump":
        return await this.#world.jump(interlude.seconds);
      case "claim":
        await patiently(() => this.#world.store(0).claim(call));
    }
  }

  /** Without faults, what was acknowledged can be read. */
  async #look(name: string): Promise<string> {
    const [account = "", bucket = "", key = ""] = name.split("/");
    const ref: ObjectRef = { account, bucket, key };
    try {
      return await patiently((attempt) => this.#doer.look(this.#world.store(attempt), ref));
    } catch (error) {
      throw new Violation(`${name} can't be read in good weather: ${(error as Error)?.stack ?? error}`);
    }
  }

  /** What is true at any moment. */
  async #expectOrder(): Promise<void> {
    const { rows } = await sql<{ what: string }>`
      select 'a pointer to a location that is ' || l.state as what
        from objects o join locations l on l.id = o.location_id where l.state <> 'live'
      union all select 'a live location without a pointer: ' || l.id
        from locations l where l.state = 'live' and not exists (select 1 from objects o where o.location_id = l.id)
      union all select 'chunks without a row: ' || c.physical_key
        from object_chunks c where not exists (select 1 from locations l where l.physical_key = c.physical_key)
      union all select 'a blob without a row: ' || b.physical_key
        from object_blobs b where not exists (select 1 from locations l where l.physical_key = b.physical_key)`.execute(
      this.#world.eye.sql,
    );
    if (rows.length > 0) throw new Violation(rows.map(({ what }) => what).join("\n"));
  }

  /** Everything, by a reader that shares no code. */
  async #compare(isReaped: boolean): Promise<void> {
    const { objects, violations } = await readIndependently(this.#world.eye, {
      directories: this.#world.directories,
      isReaped,
    });
    if (violations.length > 0) throw new Violation(violations.join("\n"));
    const expected = this.#model.names.flatMap((name) =>
      [...this.#model.possible(name)].filter((value) => value !== "absent").map((value) => [name, value] as const),
    );
    if (!isDeepStrictEqual(new Map(expected.toSorted()), new Map([...objects].toSorted()))) {
      throw new Violation(`the backends hold\n${show(objects)}\ninstead of\n${show(new Map(expected))}`);
    }
  }

  /** Good weather, nothing on its way, every lease and grace period over: what is left is what lives, and nothing else. */
  async #end(): Promise<void> {
    await patiently(() => this.#world.reopenPatiently("files"));
    const store = this.#world.store(0);
    await patiently(() => store.claim(call));
    for (let pass = 0; pass < 3; pass++) {
      await this.#world.jump(10_000);
      while (isMoreLeft(await patiently(() => store.reap(50, call)))) {
        // until nothing is left to do
      }
    }
    for (const name of this.#model.names) {
      const value = await this.#look(name);
      if (!this.#model.possible(name).has(value)) throw new Violation(`at the end ${name} is ${value}`);
    }
    await this.#compare(true);
    const begin = () => silentProgress.begin("", undefined);
    const report = await store.scrub({ share: 1, restart: true, seed: 1, clock: systemClock, begin }, call);
    if (report.damaged > 0 || report.findings.length > 0 || report.failures.length > 0) {
      throw new Violation(`a scrub at the end found ${JSON.stringify(report)}`);
    }
    const { backends } = await store.usage(true, call);
    for (const { place, held } of backends) {
      const isExplained =
        held !== undefined &&
        held.explainedBlobs === held.blobs &&
        held.explainedBytes === held.bytes &&
        held.missingBlobs === 0;
      if (!isExplained) throw new Violation(`usage does not explain ${place}: ${JSON.stringify(held)}`);
    }
  }

  #note(...lines: readonly string[]): void {
    this.#history.push(...lines);
    this.#history.splice(0, Math.max(0, this.#history.length - historyMax));
  }
}

function isMoreLeft({ failures, isMoreLeft }: ReapReport): boolean {
  if (failures.length > 0) throw new Violation(`the reaper fails in good weather: ${JSON.stringify(failures)}`);
  return isMoreLeft;
}

/** Sessions that were cut are noticed one by one; a busy machine may be silent for longer than a stormy backend's patience. */
async function patiently<T>(work: (attempt: number) => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      if (attempt === looksMax || !isCode(error, "DB_UNREACHABLE", "DB_FAILED", "BACKEND_STALLED")) throw error;
    }
  }
}

async function ended(work: Promise<unknown>, what: () => string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Violation(what())), batchTimeoutMs);
  });
  try {
    await Promise.race([work, tooLong]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(operation: Operation): string {
  return JSON.stringify(operation);
}

function show(values: ReadonlyMap<string, string>): string {
  return [...values].map(([name, value]) => `  ${name} ${value}`).join("\n");
}
