import { sql } from "kysely";
import { type Database, openDatabase } from "../../src/db/index.ts";
import type { BackendSections, ObjectStore, StoreMaintenance } from "../../src/objects/index.ts";
import { openObjectStore } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { startTestDatabase } from "../embedded-database.ts";
import { FaultyDriver, randomFaults } from "../fault/faulty-driver.ts";
import { type Life, Locks } from "./life.ts";
import { type Place, somePlaces } from "./place.ts";

export type Store = ObjectStore & StoreMaintenance & AsyncDisposable;

const graceSeconds = 900;
const leaseSeconds = 300;
/** No process stands still for longer, and then goes on. */
export const standstillSeconds = 1000;
/** No request takes effect later than that after it was sent. */
const requestSeconds = 1000;
const windows = { retireGraceSeconds: graceSeconds, leaseSeconds, lateSeconds: standstillSeconds + requestSeconds };

const call = createCall();

/** What outlives processes: one database, model backends, and what was sent to these and has not arrived. */
export class World implements AsyncDisposable {
  readonly places: readonly Place[] = somePlaces();
  /** For looking. */
  readonly eye: Database;
  readonly locks = new Locks();
  readonly #opened: AsyncDisposableStack;
  readonly #actors: Database;
  readonly #lives: readonly Database[];
  #stores: readonly Store[] = [];
  #faulty: FaultyDriver[] = [];
  #agedSeconds = 0;
  #opening = 0;
  backendIds: readonly number[] = [];

  private constructor(opened: AsyncDisposableStack, databases: readonly Database[]) {
    const [eye, actors, ...lives] = databases as [Database, Database, ...Database[]];
    this.#opened = opened;
    this.eye = eye;
    this.#actors = actors;
    this.#lives = lives;
  }

  static async open(): Promise<World> {
    await using opening = new AsyncDisposableStack();
    const { database: first, dataDirectory } = opening.use(await startTestDatabase());
    // What is killed here are processes, not the server: it need not wait for its disk. Nor may it lock whole tables to shorten their files.
    for (const setting of ["fsync", "synchronous_commit", "vacuum_truncate"]) {
      await sql`alter system set ${sql.raw(setting)} = off`.execute(first.sql);
    }
    await sql`select pg_reload_conf()`.execute(first.sql);
    const databases: Database[] = [];
    // One connection each: what a process asks of its database is then in one order, the same one for the same seed.
    for (let index = 0; index < 5; index++) {
      databases.push(opening.use(await openDatabase({ kind: "embedded", dataDirectory }, { connectionsMax: 1 }, call)));
    }
    const world = new World(opening.move(), databases);
    world.#stores = await Promise.all(
      world.places.map((place) =>
        openObjectStore({
          database: world.#actors,
          sections: world.#sections(place, undefined, (each) => each),
          ...windows,
        }),
      ),
    );
    world.backendIds = await Promise.all(
      world.places.map((place) =>
        world.store(place).copies.backendOf(
          place.section((each) => each),
          call,
        ),
      ),
    );
    return world;
  }

  /** As if nothing had been there; backends stay registered. */
  async clear(): Promise<void> {
    await this.deliverLate();
    this.#faulty = [];
    // One journey to the server.
    await sql`with moves as (delete from migration_moves), scrubbed as (delete from scrubs), pointers as (delete from objects),
        redirects as (delete from write_redirects), placed as (delete from locations)
      delete from migrations`.execute(this.eye.sql);
    await sql`select set_config('lock_timeout', '5ms', false)`.execute(this.#actors.sql);
    for (const place of this.places) place.empty();
  }

  /** A service whose new objects go to this place, and that nothing ever happens to. */
  store(place: Place): Store {
    return this.#stores[this.places.indexOf(place)] as Store;
  }

  /** Work of such a service in the database. Waits for no lock, since whoever holds it stands still meanwhile. */
  async act<T>(work: (database: Database) => Promise<T>): Promise<T> {
    return await work(this.#actors);
  }

  /** What a process opens at its start. */
  async openFor(
    life: Life,
    [workingSet, archive]: readonly [Place, Place | undefined],
    faults: { readonly seed: number; readonly rate: number },
  ): Promise<{ readonly database: Database; readonly store: Store; readonly drivers: readonly FaultyDriver[] }> {
    const database = life.databaseOver(this.#lives[this.#opening++ % this.#lives.length] as Database);
    const drivers: FaultyDriver[] = [];
    const store = await openObjectStore({
      database,
      sections: this.#sections(workingSet, archive, (place) => {
        const choose = randomFaults({ seed: faults.seed + drivers.length, rate: faults.rate });
        const faulty = new FaultyDriver(place, choose);
        drivers.push(faulty);
        this.#faulty.push(faulty);
        return life.driverOver(faulty);
      }),
      ...windows,
    });
    return { database, store, drivers };
  }

  /** The clock jumps. What was on its way for longer than a request lives has arrived by then. */
  async jump(seconds: number): Promise<void> {
    if (this.#agedSeconds + seconds >= requestSeconds) await this.deliverLate();
    this.#agedSeconds += seconds;
    await this.act((database) =>
      sql`update locations set state_since = state_since - make_interval(secs => ${seconds}),
        lease_until = lease_until - make_interval(secs => ${seconds}),
        proven_at = proven_at - make_interval(secs => ${seconds})`.execute(database.sql),
    );
  }

  async deliverLate(): Promise<void> {
    for (const driver of this.#faulty) await driver.deliverLate();
    this.#agedSeconds = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    await this.#opened[Symbol.asyncDispose]();
  }

  #sections(workingSet: Place, archive: Place | undefined, around: Parameters<Place["section"]>[0]): BackendSections {
    return {
      workingSet: workingSet.section(around),
      ...(archive === undefined ? {} : { archive: archive.section(around) }),
      others: this.places
        .filter((place) => place !== workingSet && place !== archive)
        .map((place) => place.section(around)),
    };
  }
}
