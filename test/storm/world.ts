import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { defaultCompression } from "../../src/config/index.ts";
import { type Database, openDatabase } from "../../src/db/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import {
  type BackendSection,
  type BackendSections,
  guard,
  type ObjectStore,
  openObjectStore,
  type StoreMaintenance,
} from "../../src/objects/index.ts";
import { createCall, type RetryPolicy, systemClock } from "../../src/runtime/index.ts";
import { createRandom } from "../fault/random.ts";
import { StormyDriver, stormyFiles, type Weather } from "./faults.ts";

export type Store = ObjectStore & StoreMaintenance & AsyncDisposable;

const graceSeconds = 900;
const leaseSeconds = 300;
const lateSeconds = 1000;

const call = createCall();

/** What configurations name. `forgetful` leaves out where objects lie. */
export const configurations = ["files", "database", "compressed", "archive", "forgetful"] as const;
export type ConfigurationName = (typeof configurations)[number];

export interface WorldOptions {
  readonly seed: number;
  /** From 0 to 1: how many of the backends' calls go wrong in bad weather. */
  readonly rate: number;
  /** How long a backend may be silent. */
  readonly stallMs: number;
}

/** A database, directories, two stores that know them, and weather. */
export class World implements AsyncDisposable {
  readonly weather: Weather = { isStormy: false, log: [] };
  readonly root: string;
  readonly #options: WorldOptions;
  readonly #opened: AsyncDisposableStack;
  readonly #drivers: StormyDriver[] = [];
  /** For looking, and for what is done to the database behind the stores' backs. */
  readonly eye: Database;
  readonly databases: readonly [Database, Database];
  #stores: readonly Store[] = [];
  #configuration: ConfigurationName = "files";
  #agedSeconds = 0;
  #isPatient = false;
  #driverSeed: number;

  private constructor(
    options: WorldOptions,
    root: string,
    opened: AsyncDisposableStack,
    databases: readonly Database[],
  ) {
    const [eye, one, other] = databases as [Database, Database, Database];
    this.#options = options;
    this.#driverSeed = options.seed;
    this.root = root;
    this.#opened = opened;
    this.eye = eye;
    this.databases = [one, other];
  }

  static async open(options: WorldOptions): Promise<World> {
    await using opening = new AsyncDisposableStack();
    const root = mkdtempSync(join(tmpdir(), "stowage-storm-"));
    opening.defer(() => rmSync(root, { recursive: true, force: true }));
    // As root, the embedded server is another user.
    chmodSync(root, 0o755);
    for (const name of ["one", "two"]) mkdirSync(join(root, name));
    const dataDirectory = join(root, "database");
    const databases: Database[] = [];
    for (const connectionsMax of [1, 8, 8]) {
      databases.push(opening.use(await openDatabase({ kind: "embedded", dataDirectory }, { connectionsMax }, call)));
    }
    const world = new World(options, root, opening.move(), databases);
    await world.reopen("files");
    return world;
  }

  get directories(): readonly string[] {
    return [join(this.root, "one"), join(this.root, "two")];
  }

  get configuration(): ConfigurationName {
    return this.#configuration;
  }

  store(index: number): Store {
    return this.#stores[index % this.#stores.length] as Store;
  }

  /** Both stores are closed, and opened with a configuration. */
  async reopen(configuration: ConfigurationName): Promise<void> {
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    this.#configuration = configuration;
    const guarded = (driver: Parameters<typeof guard>[0]) => {
      const { rate, stallMs } = this.#options;
      const stormy = new StormyDriver(driver, this.#driverSeed++, rate, this.weather);
      this.#drivers.push(stormy);
      return guard(stormy, { retry: this.#retry(), ...(this.#isPatient ? {} : { stallMs }) });
    };
    const open = (database: Database) =>
      openObjectStore({
        database,
        sections: this.#sections(configuration),
        guard: guarded,
        retireGraceSeconds: graceSeconds,
        leaseSeconds,
        lateSeconds,
      });
    this.#stores = [await open(this.databases[0]), await open(this.databases[1])];
  }

  /** From now on nothing is silent for too long. */
  async reopenPatiently(configuration: ConfigurationName): Promise<void> {
    this.#isPatient = true;
    await this.reopen(configuration);
  }

  setWeather(isStormy: boolean): void {
    this.weather.isStormy = isStormy;
    for (const driver of this.#drivers) driver.obeyWeather();
  }

  /** What is still on its way to a backend arrives. */
  async deliverLate(): Promise<void> {
    for (const driver of this.#drivers) await driver.deliverLate();
    this.#agedSeconds = 0;
  }

  /**
   * The clock jumps: all rows are older by so much. What was on its way for longer than a request lives has arrived by then.
   */
  async jump(seconds: number): Promise<void> {
    if (this.#agedSeconds + seconds >= lateSeconds) await this.deliverLate();
    this.#agedSeconds += seconds;
    const earlier = (column: string) =>
      sql`${sql.ref(column)} = ${sql.ref(column)} - make_interval(secs => ${seconds})`;
    await sql`update locations set ${earlier("state_since")}, ${earlier("lease_until")}, ${earlier("proven_at")}`.execute(
      this.eye.sql,
    );
  }

  /** To the database and back. */
  async journey(): Promise<void> {
    await sql`select 1`.execute(this.eye.sql);
  }

  /** As when the database server restarts: every session but ours ends. */
  async cutSessions(): Promise<void> {
    await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid()`.execute(this.eye.sql);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    await this.#opened[Symbol.asyncDispose]();
  }

  #retry(): RetryPolicy {
    const { next } = createRandom(this.#driverSeed);
    return { attemptsMax: 4, firstDelayMs: 1, delayMaxMs: 5, clock: systemClock, random: next };
  }

  #sections(configuration: ConfigurationName): BackendSections {
    const [one, two] = [this.#files("one"), this.#files("two")];
    const database: BackendSection = {
      opener: {
        name: "db",
        settingsOf: () => ({}),
        open: async (_config, surroundings) => new DatabaseDriver(surroundings.database),
      },
      config: {},
    };
    switch (configuration) {
      case "files":
        return { workingSet: one, others: [database, two] };
      case "database":
        return { workingSet: database, others: [one, two] };
      case "compressed":
        return {
          workingSet: { ...two, compression: { ...defaultCompression, enabled: true, minSizeKbytes: 1 } },
          archive: {
            ...one,
            compression: { ...defaultCompression, enabled: true, minSizeKbytes: 4, algorithm: "gzip" },
          },
          others: [database],
        };
      case "archive":
        return { workingSet: database, archive: two, others: [one] };
      case "forgetful":
        return { workingSet: one };
    }
  }

  #files(name: string): BackendSection {
    const root = join(this.root, name);
    return {
      opener: {
        name: "localfs",
        settingsOf: () => ({ archive_data_dir: root }),
        open: async (_config, _surroundings, under) =>
          await openLocalFiles(
            { root, fileMode: 0o640, directoryMode: 0o750 },
            under,
            stormyFiles(this.#driverSeed, this.#options.rate, this.weather),
          ),
      },
      config: {},
    };
  }
}
