import { hostname } from "node:os";
import type { Configuration } from "../config/index.ts";
import { type Database, type DatabaseLocation, type HeldLock, openDatabase } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import {
  type FailedMove,
  isSamePlace,
  type MigrationOrder,
  type MigrationPace,
  type MigrationStatus,
  Migrations,
  type SelectionFlags,
  type StoreBackends,
  selectionOf,
} from "../migration/index.ts";
import {
  type BackendSection,
  type BackendSections,
  checkBackend,
  describeSection,
  type Elsewhere,
  guard,
  openObjectStore,
} from "../objects/index.ts";
import { type Call, giveWay, systemClock } from "../runtime/index.ts";
import { Rehearsal } from "./migration-rehearsal.ts";
import { sectionsOf } from "./sections.ts";
import { nameOfProcess, processesWithout, type StoreShare, shareStore, storeHolders, takeStore } from "./store-lock.ts";

/** What is to be migrated, as its operator says it. */
export interface MigrationRequest extends SelectionFlags {
  readonly keepsSources: boolean;
  readonly verify: "readback" | "checksum";
  /** Other processes go on meanwhile. */
  readonly isOnline: boolean;
  /** Absolute paths of the configuration files. */
  readonly files: readonly [source: string, destination: string];
}

/** What a request would move, and where to. */
export interface MigrationSurvey {
  readonly groups: readonly {
    readonly bucket: string;
    readonly from: string;
    readonly to: string;
    readonly objects: number;
    readonly bytes: number;
  }[];
  readonly objects: number;
  readonly bytes: number;
  /** What is selected lies where it is to go: both configurations name the same place. */
  readonly isSamePlace: boolean;
  /** A migration of the same request that has not come to its end. */
  readonly unfinished: RecordedMigration | undefined;
}

/** A migration as it is: one that says that it runs, with nobody at it, is interrupted. */
export type RecordedMigration = Omit<MigrationStatus, "state"> & {
  readonly state: MigrationStatus["state"] | "interrupted";
};

export type MigrationWork = Pick<MigrationPace, "concurrency" | "bytesPerSecondMax" | "watch">;

/** Migrations as the journal has them. Nothing but the database is needed. */
export interface MigrationJournal extends AsyncDisposable {
  list(call: Call): Promise<readonly RecordedMigration[]>;
  /** @throws StowageError `MIGRATION_NOT_FOUND` */
  get(id: number, call: Call): Promise<RecordedMigration>;
  /** Every object that could not go on, with the last reason. */
  failures(id: number): AsyncIterable<FailedMove>;
  /**
   * Ends a migration where it is: what has been switched stays at the destination, all else at the source.
   * @throws StowageError `MIGRATION_NOT_FOUND`, `MIGRATION_BUSY`
   */
  cancel(id: number, call: Call): Promise<RecordedMigration>;
}

export type Left = Pick<Elsewhere, "place" | "objects">;

/** Moves objects from the stores of one configuration to those of another. */
export interface Migrator extends MigrationJournal {
  survey(request: MigrationRequest, call: Call): Promise<MigrationSurvey>;
  /** Tries each place that could be read or written, and measures it. */
  rehearse(survey: MigrationSurvey, call: Call): Rehearsal;
  /** Other processes that have the store open. */
  others(): Promise<readonly string[]>;
  /**
   * Takes the store until the migrator is closed: for this process alone, or beside others for an online migration.
   * @throws StowageError `MIGRATION_STORE_IN_USE`, `MIGRATION_RUNNING`
   */
  enter(isOnline: boolean, call: Call): Promise<void>;
  /**
   * Makes sure that the two configurations lead to the places of a migration that others may have begun it with.
   * @throws StowageError `CONFIG_INVALID`
   */
  refuseOtherPlaces(migration: RecordedMigration, files: MigrationRequest["files"], call: Call): Promise<void>;
  /**
   * What is refused leaves no plan behind.
   * @throws StowageError `MIGRATION_OVERLAPS`, `MIGRATION_STORE_IN_USE` when other processes can't reach both stores of an online migration
   */
  plan(request: MigrationRequest, call: Call): Promise<number>;
  /** Carries out a migration, or goes on with it. See `Migrations.run`. */
  run(id: number, work: MigrationWork, call: Call): Promise<RecordedMigration>;
  /** Objects that lie at places which the destination's configuration does not name. */
  leftElsewhere(call: Call): Promise<readonly Left[]>;
}

export interface MigratorOptions {
  readonly source: Configuration;
  readonly destination: Configuration;
  readonly database: DatabaseLocation;
}

type Store = Awaited<ReturnType<typeof openObjectStore>>;

const purpose = "migrate";
/** How often what could not go on is tried again before the end. */
const passesMax = 3;

export async function openMigrationJournal(database: DatabaseLocation, call: Call): Promise<MigrationJournal> {
  // Records name places; to look at them, or to leave them as they are, none has to be reached.
  return await open(database, { workingSet: await databaseSection() }, call, async (...parts) => new Journal(...parts));
}

export async function openMigrator(options: MigratorOptions, call: Call): Promise<Migrator> {
  const source = await sectionsOf(options.source);
  const destination = await sectionsOf(options.destination);
  const others = [
    ...(destination.others ?? []),
    source.workingSet,
    ...(source.archive === undefined ? [] : [source.archive]),
    ...(source.others ?? []),
  ];
  return await open(
    options.database,
    { ...destination, others },
    call,
    async (database, store) => new OpenMigrator(database, store, source, destination),
  );
}

async function open<T>(
  location: DatabaseLocation,
  sections: BackendSections,
  call: Call,
  make: (database: Database, store: Store) => Promise<T>,
): Promise<T> {
  await using opening = new AsyncDisposableStack();
  const database = opening.use(await openDatabase(location, { applicationName: nameOfProcess(purpose) }, call));
  const store = opening.use(await openObjectStore({ database, sections, guard }));
  const made = await make(database, store);
  opening.move();
  return made;
}

async function databaseSection(): Promise<BackendSection> {
  const { defaultConfiguration } = await import("../config/index.ts");
  return (await sectionsOf(defaultConfiguration)).workingSet;
}

class Journal implements MigrationJournal {
  protected readonly database: Database;
  protected readonly store: Store;
  protected readonly migrations: Migrations;

  constructor(database: Database, store: Store) {
    this.database = database;
    this.store = store;
    this.migrations = new Migrations(database, store);
  }

  async list(): Promise<readonly RecordedMigration[]> {
    return await Promise.all((await this.migrations.list()).map((status) => this.asItIs(status)));
  }

  async get(id: number): Promise<RecordedMigration> {
    return await this.asItIs(await this.migrations.get(id));
  }

  failures(id: number): AsyncIterable<FailedMove> {
    return this.migrations.failures(id);
  }

  async cancel(id: number, call: Call): Promise<RecordedMigration> {
    return await this.migrations.cancel(id, call);
  }

  protected async asItIs(status: MigrationStatus): Promise<RecordedMigration> {
    if (status.state !== "running" && status.state !== "planning") return status;
    const holders = await this.database.holdersOf(`migration ${status.id}`);
    return holders.length > 0 ? status : { ...status, state: "interrupted" };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    await this.database[Symbol.asyncDispose]();
  }
}

class OpenMigrator extends Journal implements Migrator {
  readonly #source: BackendSections;
  readonly #destination: BackendSections;
  #entered: HeldLock | StoreShare | undefined;
  #isShared = false;

  constructor(database: Database, store: Store, source: BackendSections, destination: BackendSections) {
    super(database, store);
    this.#source = source;
    this.#destination = destination;
  }

  async survey(request: MigrationRequest, call: Call): Promise<MigrationSurvey> {
    // Nothing is written yet: the place that somebody typed by mistake stays nobody's.
    const idOf = (section: BackendSection) => this.store.copies.lookUp(section, call);
    const order = await this.#order(request, idOf);
    const { sourceBackendId } = order.selection;
    const places = await this.#places(idOf);
    const groups = (await this.migrations.preview(order.selection)).map(({ destinationBackendId, ...group }) => ({
      ...group,
      from: places.get(sourceBackendId) ?? "",
      to: places.get(destinationBackendId) ?? "",
    }));
    const unfinished = await this.migrations.findUnfinished(order);
    return {
      groups,
      objects: groups.reduce((sum, { objects }) => sum + objects, 0),
      bytes: groups.reduce((sum, { bytes }) => sum + bytes, 0),
      isSamePlace: isSamePlace(order.selection),
      unfinished: unfinished && (await this.get(unfinished.id)),
    };
  }

  rehearse({ groups }: MigrationSurvey, call: Call): Rehearsal {
    const sections = new Map<string, BackendSection>();
    for (const { workingSet, archive } of [this.#source, this.#destination]) {
      for (const section of [workingSet, archive]) if (section) sections.set(describeSection(section), section);
    }
    return new Rehearsal(sections, groups, (section) => checkBackend(section, this.database, guard, call));
  }

  others(): Promise<readonly string[]> {
    return storeHolders(this.database);
  }

  async enter(isOnline: boolean, call: Call): Promise<void> {
    if (this.#entered !== undefined) return;
    this.#entered = isOnline ? await shareStore(this.database, call) : await takeStore(this.database, call);
    this.#isShared = isOnline;
    if (isOnline) giveWay();
  }

  async plan(request: MigrationRequest, call: Call): Promise<number> {
    const idOf = (section: BackendSection) => this.store.copies.backendOf(section, call);
    const order = await this.#order(request, idOf);
    if (order.isOnline) await this.migrations.refuseUnready(order.selection, this.#unready, call);
    return await this.migrations.plan(order, executor(), call);
  }

  async run(id: number, work: MigrationWork, call: Call): Promise<RecordedMigration> {
    if (this.#entered === undefined) throw new TypeError("the store is not held");
    const { isOnline } = (await this.migrations.get(id)).options;
    if (this.#isShared && !isOnline) throw new TypeError("an offline migration needs the store for itself alone");
    const pace = { ...work, executor: executor(), clock: systemClock, passesMax, unready: this.#unready };
    const signal = AbortSignal.any([call.signal, this.#entered.signal]);
    return await this.migrations.run(id, pace, { ...call, signal });
  }

  async refuseOtherPlaces(
    { id, options: { selection }, source, destination }: RecordedMigration,
    files: MigrationRequest["files"],
    call: Call,
  ): Promise<void> {
    const idOf = (section: BackendSection) => this.store.copies.lookUp(section, call);
    const from = await backendsOf(this.#source, idOf);
    const to = await backendsOf(this.#destination, idOf);
    const refuse = (file: string, key: string, role: string, { place }: MigrationStatus["source"]) => {
      const reason = `it does not lead to the ${role} of migration ${id}, ${place}`;
      const hint = `give the files in the order SRC-CONFIG DEST-CONFIG; those that it was begun with: stowage objectstorage migration show ${id}`;
      throw new StowageError("CONFIG_INVALID", { file, key, reason }, { hint });
    };
    if (![from.workingSet, from.archive].includes(selection.sourceBackendId)) {
      refuse(files[0], "services.catalog.object_store", "source", source);
    }
    if (![to.workingSet, to.archive].includes(selection.destinationBackendId)) {
      refuse(files[1], "services.catalog.object_store", "destination", destination);
    }
    if (to.archive !== selection.archiveBackendId) {
      refuse(files[1], "services.catalog.analysis_archive", "archive", destination);
    }
  }

  async leftElsewhere(call: Call): Promise<readonly Left[]> {
    const { workingSet, archive, others = [] } = this.#destination;
    const elsewhere = await this.store.elsewhere(call);
    const sections = [workingSet, ...(archive === undefined ? [] : [archive]), ...others];
    const named = await Promise.all(sections.map((section) => this.store.copies.knownAs(section)));
    return elsewhere
      .filter(({ backendId }) => !named.includes(backendId))
      .map(({ place, objects }) => ({ place, objects }));
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.#entered?.[Symbol.asyncDispose]();
    await super[Symbol.asyncDispose]();
  }

  /** Other processes that have the store open and can't reach these; what lies in the database itself everybody reaches. */
  readonly #unready = async (ids: readonly number[]): Promise<readonly string[]> => {
    const apart = ids.filter((id) => this.store.reachable.includes(id));
    const itself = nameOfProcess(purpose);
    return (await processesWithout(this.database, apart)).filter((name) => name !== itself);
  };

  async #order(request: MigrationRequest, idOf: IdOf): Promise<MigrationOrder> {
    const { keepsSources, verify, isOnline, files, ...flags } = request;
    const { fromAnalysisArchive, toAnalysisArchive } = flags;
    if (fromAnalysisArchive && this.#source.archive === undefined) throw withoutArchive(files[0]);
    if (toAnalysisArchive && this.#destination.archive === undefined) throw withoutArchive(files[1]);
    const selection = selectionOf(
      flags,
      await backendsOf(this.#source, idOf),
      await backendsOf(this.#destination, idOf),
    );
    return {
      selection,
      source: nameOf(this.#source, fromAnalysisArchive),
      destination: nameOf(this.#destination, toAnalysisArchive),
      keepsSources,
      verify,
      isOnline,
      files,
    };
  }

  async #places(idOf: IdOf): Promise<ReadonlyMap<number, string>> {
    const places = new Map<number, string>();
    for (const { workingSet, archive } of [this.#source, this.#destination]) {
      for (const section of [workingSet, archive]) {
        if (section) places.set(await idOf(section), describeSection(section));
      }
    }
    return places;
  }
}

type IdOf = (section: BackendSection) => Promise<number>;

async function backendsOf({ workingSet, archive = workingSet }: BackendSections, idOf: IdOf): Promise<StoreBackends> {
  return { workingSet: await idOf(workingSet), archive: await idOf(archive) };
}

function nameOf({ workingSet, archive = workingSet }: BackendSections, isArchive: boolean) {
  const section = isArchive ? archive : workingSet;
  return { driver: section.opener.name, place: describeSection(section) };
}

function withoutArchive(file: string): StowageError {
  return new StowageError(
    "CONFIG_INVALID",
    { file, key: "services.catalog.analysis_archive", reason: "it is missing" },
    { hint: "add the section, or leave out --from-analysis-archive or --to-analysis-archive for this file" },
  );
}

/** In the form that migrations have always named theirs: host, process, thread. */
function executor(): string {
  return `${hostname()}:${process.pid}:main:`;
}
