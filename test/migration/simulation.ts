import { sql } from "kysely";
import { isCode, StowageError } from "../../src/errors/index.ts";
import { type MigrationOrder, type MigrationPace, Migrations, selectionOf } from "../../src/migration/index.ts";
import type { PhysicalKey } from "../../src/objects/index.ts";
import { createCall, onStep, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { createRandom, type SeededRandom } from "../fault/random.ts";
import { Others, Violation } from "./deeds.ts";
import { Life } from "./life.ts";
import { type LocationRow, readModel, type Seen } from "./memory-reader.ts";
import type { Place } from "./place.ts";
import { type LifePlan, type Order, type Script, scriptOf } from "./script.ts";
import { standstillSeconds, type World } from "./world.ts";

export interface SimulationResult {
  readonly seed: number;
  /** How its lives ended, and how its migrations did. */
  readonly outcomes: readonly string[];
  readonly faults: number;
  readonly violation: string | undefined;
  readonly history: readonly string[];
}

interface MoveRow {
  readonly migration_id: number;
  readonly name: string;
  readonly version: number;
  readonly content_digest: string;
  readonly source_location_id: number;
  readonly source: string;
  readonly destination: string;
  readonly state: string;
  readonly keeps: boolean;
}

const call = createCall();
/** Ends what hangs, on the slowest machine too. */
const timeoutMs = 300_000;
const goodLivesMax = 6;
const calm: LifePlan = { command: "resume", fate: {}, faults: 0, company: 0 };

/** One seed is one run: migrations of a few objects between model backends, with all that can go wrong, and what must be true of them. */
export async function simulate(world: World, seed: number): Promise<SimulationResult> {
  await world.clear();
  return await new Simulation(world, seed).run();
}

class Simulation {
  readonly #world: World;
  readonly #seed: number;
  readonly #random: SeededRandom;
  readonly #script: Script;
  readonly #others: Others;
  readonly #history: string[] = [];
  readonly #outcomes: string[] = [];
  readonly #judged = new Set<number>();
  /** By number. */
  readonly #ordered = new Map<number, Order>();
  /** As it was looked at last, unless somebody did something since. */
  #seen: Seen | undefined;
  #current: Life | undefined;
  #company = 0;
  /** Locations that lived when the last life began: what lies there is no news to it. */
  #known: ReadonlySet<number> = new Set();
  #acting: Promise<void> | undefined;
  #violation: Error | undefined;
  #zombie: { readonly life: Life; readonly ended: Promise<void> } | undefined;
  #stoodSeconds = 0;
  #faults = 0;
  #damagedLocation: number | undefined;
  #lives = 0;

  constructor(world: World, seed: number) {
    this.#world = world;
    this.#seed = seed;
    this.#script = scriptOf(createRandom(seed), world.places);
    this.#random = createRandom(seed ^ 0x51a1);
    const [first] = this.#script.orders;
    this.#others = new Others(world, this.#random, {
      note: (line) => this.#note(line),
      pass: async (seconds) => {
        if (this.#mayPass(seconds)) await this.#pass(seconds);
      },
    });
    this.#others.targets = [first?.order.from as Place];
  }

  async run(): Promise<SimulationResult> {
    const stop = onStep(({ name }) => {
      if (this.#acting !== undefined) return;
      this.#current?.announced(name);
      if (name === "migration ended") this.#company = 0;
      if (this.#current?.isDead === false) this.#note(`    ${name}`);
    });
    let violation: string | undefined;
    try {
      await inTime(this.#run());
    } catch (error) {
      violation = error instanceof Violation ? error.message : `unexpected: ${(error as Error)?.stack ?? error}`;
      this.#current?.die();
      this.#zombie?.life.die();
    } finally {
      stop();
    }
    return { seed: this.#seed, outcomes: this.#outcomes, faults: this.#faults, violation, history: this.#history };
  }

  async #run(): Promise<void> {
    await this.#fill();
    for (const { order, lives } of this.#script.orders) {
      this.#note(describe(order));
      this.#others.targets = [order.from, order.to];
      for (const plan of lives) {
        await this.#life(order, plan);
        await this.#judge();
        await this.#meanwhile();
      }
      await this.#life(order, { ...calm, command: "order" });
      await this.#comeToAnEnd(order);
    }
    await this.#end();
  }

  async #fill(): Promise<void> {
    const [{ order }] = this.#script.orders as [Script["orders"][number]];
    for (let index = 0; index < this.#script.objects; index++) {
      const bucket = this.#random.next() < 0.7 ? "b" : "analysis_archive";
      const account = this.#random.next() < 0.7 ? "one" : "two";
      await this.#others.put(`${account}/${bucket}/${index}`, this.#random.next() < 0.85 ? order.from : order.to);
    }
    if (this.#script.hasDamage) await this.#damage(order.from);
    await this.#judge();
  }

  async #damage(place: Place): Promise<void> {
    const { objects } = await readModel(this.#world, this.#damagedLocation);
    const [found] = [...objects].filter(([, { row }]) => row.place === place.place);
    if (found === undefined) return;
    const [name, { row }] = found;
    const bytes = place.blobs.get(row.physical_key as PhysicalKey) as Buffer;
    place.blobs.set(row.physical_key as PhysicalKey, Buffer.from(bytes.subarray(0, bytes.length - 20)));
    this.#others.damaged = name;
    this.#damagedLocation = row.id;
    this.#note(`${name} is damaged at ${place.place}`);
  }

  /** A process that migrates, until it ends, dies or stands still. */
  async #life(order: Order, plan: LifePlan): Promise<void> {
    const { fate, faults, company } = plan;
    const rows = [...(this.#seen?.rows.values() ?? [])];
    this.#known = new Set(rows.filter(({ state }) => state === "live").map(({ id }) => id));
    const life = new Life(this.#world.locks, fate, (self) => this.#between(self));
    this.#note(`  life ${++this.#lives}: ${JSON.stringify(plan)}`);
    const seed = this.#seed * 100 + this.#lives;
    const { database, store, drivers } = await this.#world.openFor(life, [order.to, order.archive], {
      seed,
      rate: faults,
    });
    const migrations = new Migrations(database, store);
    this.#company = company;
    this.#current = life;
    life.arm();
    const ended = this.#carryOut(migrations, order, plan, life).then(
      (outcome) => this.#ended(life, plan, outcome, undefined),
      (error: unknown) => this.#ended(life, plan, "", error),
    );
    await Promise.race([ended, life.stood]);
    // One of its points may have been where others were at work.
    while (this.#acting !== undefined) await this.#acting;
    this.#current = undefined;
    this.#faults += drivers.reduce((sum, { injected }) => sum + injected.length, 0);
    for (const { injected } of drivers) {
      for (const { operation, fault, key } of injected) this.#note(`    ${operation} ${key}: ${JSON.stringify(fault)}`);
    }
    if (life.isStanding) {
      await this.#awaken();
      this.#zombie = { life, ended };
      this.#stoodSeconds = 0;
      this.#note("  it stands still");
    }
    if (this.#violation !== undefined) throw this.#violation;
  }

  #ended(life: Life, { fate, faults }: LifePlan, outcome: string, error: unknown): void {
    life.end();
    const code = error instanceof StowageError ? error.code : (error as Error | undefined)?.message;
    const what = life.isDead ? "killed" : error === undefined ? outcome : `failed: ${code}`;
    this.#outcomes.push(what);
    this.#note(`  ${what} after ${life.points} points`);
    if (life.isDead || error === undefined) return;
    if (error instanceof Violation) this.#violation = error;
    const isGoodWeather = faults === 0 && Object.keys(fate).length === 0;
    const isRefusal = isCode(error, "MIGRATION_OVERLAPS", "MIGRATION_BUSY", "DB_LOCK_LOST");
    if (error instanceof TypeError || (isGoodWeather && !isRefusal)) this.#violation ??= error as Error;
  }

  async #carryOut(migrations: Migrations, order: Order, { command }: LifePlan, life: Life): Promise<string> {
    const under = createCall({ signal: life.signal });
    let isWaiting = false;
    const pace: MigrationPace = {
      concurrency: order.concurrency,
      executor: "simulated",
      clock: {
        ...systemClock,
        sleep: async () => {
          await life.point("sleep");
          if (!isWaiting) return;
          if (!this.#mayPass(400)) await this.#awaken();
          await this.#pass(400);
        },
      },
      passesMax: 3,
      watch: ({ phase }) => {
        isWaiting = phase.startsWith("waiting");
      },
    };
    const [unfinished] = command === "order" ? [] : await this.#unfinished();
    if (command === "cancel") {
      if (unfinished === undefined) return "nothing to cancel";
      return (await migrations.cancel(unfinished, under)).state;
    }
    if (unfinished !== undefined) return (await migrations.run(unfinished, pace, under)).state;
    const given = this.#migrationOrder(order);
    const known = await migrations.findUnfinished(given);
    const seen = this.#seen;
    const id = known?.id ?? (await migrations.plan(given, "simulated", under));
    this.#ordered.set(id, order);
    if (known === undefined && seen !== undefined && this.#seen === seen) await this.#judgePlan(order, id, seen);
    return (await migrations.run(id, pace, under)).state;
  }

  #migrationOrder(order: Order): MigrationOrder {
    const idOf = (place: Place) => this.#world.backendIds[this.#world.places.indexOf(place)] as number;
    const { buckets, account, toAnalysisArchive } = order;
    const flags = {
      fromAnalysisArchive: false,
      toAnalysisArchive,
      buckets,
      ...(account === undefined ? {} : { account }),
    };
    const source = { workingSet: idOf(order.from), archive: idOf(order.from) };
    const destination = { workingSet: idOf(order.to), archive: idOf(order.archive ?? order.to) };
    return {
      selection: selectionOf(flags, source, destination),
      source: { driver: "memory", place: order.from.place },
      destination: { driver: "memory", place: order.to.place },
      keepsSources: order.keepsSources,
      verify: order.verify,
      isOnline: order.isOnline,
      files: ["source.yaml", "destination.yaml"],
    };
  }

  /** At a point of a life: others may do something, or whoever stood still goes on for a moment. Nobody else does anything meanwhile. */
  async #between(life: Life): Promise<void> {
    while (this.#acting !== undefined) await this.#acting;
    if (this.#company === 0 || this.#random.next() >= this.#company || life !== this.#current) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#acting = promise;
    try {
      this.#seen = undefined;
      const isZombiesTurn = this.#zombie !== undefined && !life.isInTransaction && this.#random.next() < 0.5;
      if (!isZombiesTurn) await this.#others.something(false);
      else {
        this.#note("      who stood still goes on for a moment");
        await this.#goOn(1 + this.#random.integer(8));
      }
    } catch (error) {
      this.#violation ??= error as Error;
      life.die();
    } finally {
      this.#acting = undefined;
      resolve();
    }
  }

  async #goOn(points: number): Promise<void> {
    const zombie = this.#zombie;
    if (zombie === undefined) return;
    // Its own points must not wait for the act that they are part of.
    const acting = this.#acting;
    this.#acting = undefined;
    try {
      await Promise.race([zombie.life.goOnFor(points), zombie.ended]);
    } finally {
      this.#acting = acting;
    }
    if (!zombie.life.isStanding) this.#zombie = undefined;
  }

  /** Whoever stood still goes on, and notices after a while that its lock is lost. */
  async #awaken(): Promise<void> {
    const zombie = this.#zombie;
    this.#zombie = undefined;
    if (zombie === undefined) return;
    this.#note("  who stood still goes on");
    this.#seen = undefined;
    zombie.life.goOn(this.#random.integer(30));
    await zombie.ended;
  }

  /** Between two lives. */
  async #meanwhile(): Promise<void> {
    this.#seen = undefined;
    for (let count = this.#random.integer(4); count > 0; count--) await this.#others.something(true);
    // Left for longer than any grace period and lease.
    if (this.#random.next() < 0.1) await this.#reapAll();
    await this.#judge();
  }

  async #comeToAnEnd(order: Order): Promise<void> {
    for (let lives = 0; ; lives++) {
      await this.#awaken();
      await this.#judge();
      const unfinished = await this.#unfinished();
      if (unfinished.length === 0) return;
      if (lives > goodLivesMax) throw new Violation(`migration ${unfinished.join()} does not come to its end`);
      const { damaged } = this.#others;
      if (damaged !== undefined && lives > 0) {
        await this.#judgeDamaged(damaged);
        this.#seen = undefined;
        await this.#others.put(damaged, order.from);
        this.#note(`${damaged} is written anew`);
      }
      await this.#life(order, calm);
    }
  }

  async #end(): Promise<void> {
    await this.#awaken();
    await this.#reapAll();
    await this.#judge();
    const seen = await readModel(this.#world, this.#damagedLocation);
    const left = [...seen.rows.values()].filter(({ state }) => state !== "live" && state !== "kept");
    if (left.length > 0)
      throw new Violation(`left though all is over: ${left.map(({ id, state }) => `${id} ${state}`).join()}`);
    const held = this.#world.places.reduce((sum, place) => sum + place.keys.length, 0);
    if (held !== seen.rows.size) throw new Violation(`${held} blobs, ${seen.rows.size} locations`);
    const begin = () => silentProgress.begin("", undefined);
    const store = this.#world.store(this.#world.places[0] as Place);
    const report = await store.scrub({ share: 1, restart: true, seed: 1, clock: systemClock, begin }, call);
    const isClean = report.damaged === 0 && report.findings.length === 0 && report.failures.length === 0;
    if (!isClean && this.#others.damaged === undefined) throw new Violation(`a scrub finds ${JSON.stringify(report)}`);
  }

  #mayPass(seconds: number): boolean {
    return this.#zombie === undefined || this.#stoodSeconds + seconds < standstillSeconds;
  }

  async #pass(seconds: number): Promise<void> {
    await this.#world.jump(seconds);
    this.#stoodSeconds += seconds;
  }

  async #reapAll(): Promise<void> {
    await this.#awaken();
    this.#seen = undefined;
    this.#note("  long after");
    const store = this.#world.store(this.#world.places[0] as Place);
    for (let pass = 0; pass < 3; pass++) {
      await this.#pass(10_000);
      while ((await store.reap(100, call)).isMoreLeft) {
        // until nothing is left to do
      }
    }
  }

  async #unfinished(): Promise<readonly number[]> {
    const { rows } = await sql<{ id: number }>`
      select id from migrations where state not in ('complete', 'cancelled') order by id`.execute(this.#world.eye.sql);
    return rows.map(({ id }) => id);
  }

  /** What must be true at any time when nobody is at work. */
  async #judge(): Promise<void> {
    if (this.#zombie === undefined && (await this.#hasNewlyEnded())) {
      await this.#others.finishPuts();
    }
    const seen = await readModel(this.#world, this.#damagedLocation);
    const violations = [...seen.violations];
    const { expected, damaged } = this.#others;
    for (const name of new Set([...expected.keys(), ...seen.objects.keys()])) {
      const [is, should] = [seen.objects.get(name), expected.get(name)];
      if (is === undefined) violations.push(`${name} is lost`);
      else if (should === undefined) violations.push(`${name} is there again`);
      else if (is.value !== should.value && name !== damaged)
        violations.push(`${name} is ${is.value} at ${is.row.place}`);
      else if (is.version !== should.version)
        violations.push(`${name} is version ${is.version}, not ${should.version}`);
    }
    violations.push(...(await this.#judgeEnded(seen)));
    if (violations.length > 0) throw new Violation(violations.join("\n"));
    this.#seen = seen;
  }

  async #hasNewlyEnded(): Promise<boolean> {
    const { rows } = await sql<{ id: number }>`select id from migrations where state = 'complete'`.execute(
      this.#world.eye.sql,
    );
    return rows.some(({ id }) => !this.#judged.has(id));
  }

  /** Migrations that have said since the last look that they are complete, or cancelled. */
  async #judgeEnded(seen: Seen): Promise<readonly string[]> {
    const { rows: ended } = await sql<{ id: number; state: string }>`
      select id, state from migrations where state in ('complete', 'cancelled') order by id`.execute(
      this.#world.eye.sql,
    );
    const violations: string[] = [];
    for (const { id, state } of ended) {
      const held = [...seen.rows.values()].filter(({ migration_id }) => migration_id === id);
      if (held.length > 0) violations.push(`migration ${id} is ${state} and holds ${held.map((row) => row.id).join()}`);
      const moves = await this.#moves(id);
      const open = moves.filter((move) => ["planned", "copied", "verified", "switched"].includes(move.state));
      if (open.length > 0) violations.push(`migration ${id} is ${state} with ${open.length} moves that are not ended`);
      if (state !== "complete" || this.#judged.has(id)) continue;
      this.#judged.add(id);
      this.#outcomes.push("a migration complete");
      violations.push(...moves.flatMap((move) => this.#judgeMove(move, seen)));
      const order = this.#script.orders.find((each) => each.order === this.#ordered.get(id))?.order;
      if (order === undefined) continue;
      // Online there is no news: new objects go to the destination, and writers are waited for.
      const left = [...seen.objects].filter(
        ([, { row }]) => destinationOf(order, row) !== undefined && (order.isOnline || this.#known.has(row.id)),
      );
      if (left.length > 0)
        violations.push(`migration ${id} says that it is complete, ${left.map(([name]) => name)} are still there`);
    }
    return violations;
  }

  #judgeMove(move: MoveRow, seen: Seen): readonly string[] {
    const { name, migration_id: id, source, destination, source_location_id: left, keeps } = move;
    const at = seen.objects.get(name);
    const violations: string[] = [];
    const isTheSame = at !== undefined && at.version === move.version && at.value === move.content_digest;
    const isLeft = at !== undefined && at.row.place === source && isTheSame;
    if (isLeft) violations.push(`${name} lies at ${at.row.place}, not at ${destination}`);
    const row = seen.rows.get(left);
    const place = this.#world.places.find((each) => each.place === source);
    const hasBytes = row !== undefined && place?.blobs.has(row.physical_key as PhysicalKey) === true;
    // Of a version that is no more nothing is kept.
    if (move.state === "done" && keeps && isTheSame && (row?.state !== "kept" || !hasBytes)) {
      violations.push(`the source of ${name} was not kept`);
    }
    if (move.state === "done" && !keeps && hasBytes) violations.push(`the source of ${name} is still there`);
    if (move.state !== "done" && move.state !== "superseded") violations.push(`the move of ${name} is ${move.state}`);
    return violations.map((each) => `migration ${id} says that it is complete: ${each}`);
  }

  async #moves(id: number): Promise<readonly MoveRow[]> {
    const { rows } = await sql<MoveRow>`
      select migration_id, account || '/' || bucket || '/' || object_key as name, version, content_digest, source_location_id,
        source.settings ->> 'place' as source, destination.settings ->> 'place' as destination, moves.state,
        (migrations.options ->> 'keepsSources')::boolean as keeps
      from migration_moves moves join migrations on migrations.id = migration_id
        join backends source on source.id = source_backend_id join backends destination on destination.id = destination_backend_id
      where migration_id = ${id}`.execute(this.#world.eye.sql);
    return rows;
  }

  /** What the issue's table says that is selected, against what was planned. */
  async #judgePlan(order: Order, id: number, seen: Seen): Promise<void> {
    const expected = [...seen.objects].flatMap(([name, { row }]) => {
      const destination = destinationOf(order, row);
      return destination === undefined ? [] : [`${name} to ${destination.place}`];
    });
    const planned = (await this.#moves(id)).map(({ name, destination }) => `${name} to ${destination}`);
    if (expected.toSorted().join() !== planned.toSorted().join()) {
      throw new Violation(`migration ${id} plans ${planned.join()} instead of ${expected.join()}`);
    }
  }

  /** The damaged one is the only one left, and listed with its reason. */
  async #judgeDamaged(name: string): Promise<void> {
    const { rows } = await sql<{ name: string; error_code: string | null }>`
      select account || '/' || bucket || '/' || object_key as name, error_code from migration_moves
      where state in ('planned', 'copied', 'verified', 'switched')`.execute(this.#world.eye.sql);
    const others = rows.filter((row) => row.name !== name || row.error_code === null);
    if (others.length > 0) throw new Violation(`one bad object keeps others: ${JSON.stringify(rows)}`);
  }

  #note(line: string): void {
    this.#history.push(line);
  }
}

/** Where what lies there goes, by the table of flags; nowhere when it is not selected. */
function destinationOf(order: Order, row: LocationRow): Place | undefined {
  const archive = order.archive ?? order.to;
  const isArchived = row.bucket === "analysis_archive";
  const destination = order.toAnalysisArchive || isArchived ? archive : order.to;
  const isSelected =
    row.place === order.from.place &&
    (order.account === undefined || row.account === order.account) &&
    (order.buckets.length === 0 || order.buckets.includes(row.bucket)) &&
    (!order.toAnalysisArchive || order.buckets.length > 0 || isArchived) &&
    destination !== order.from;
  return isSelected ? destination : undefined;
}

function describe(order: Order): string {
  const { from, to, archive, ...rest } = order;
  return `${from.place} → ${to.place}${archive === undefined ? "" : ` and ${archive.place}`} ${JSON.stringify(rest)}`;
}

async function inTime(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Violation("it hangs")), timeoutMs);
  });
  try {
    await Promise.race([work, tooLong]);
  } finally {
    clearTimeout(timer);
  }
}
