import { type Compression, defaultCompression } from "../config/index.ts";
import type { Database } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import { type Call, defaultRetryPolicy, retry, throwIfAborted } from "../runtime/index.ts";
import type { DriverOpener, ObjectDriver } from "./driver.ts";
import { checkMarker, claimMarker, findMark, findOwnMark, type Place } from "./marker.ts";
import {
  type BackendRow,
  type Installation,
  mergeBackends,
  readBackend,
  readBackends,
  readInstallation,
  recordIdentity,
  registerBackend,
} from "./rows/backends.ts";

/** A storage section of the configuration. */
export interface BackendSection {
  readonly opener: DriverOpener;
  /** As the driver's schema gives it. */
  readonly config: unknown;
  readonly compression?: Compression;
}

/** The sections that name backends. What lies in the database itself needs none. */
export interface BackendSections {
  /** Where new objects go. */
  readonly workingSet: BackendSection;
  /** Where archived ones go; the working set's own where there is none. */
  readonly archive?: BackendSection;
  /** Where objects of earlier configurations lie. */
  readonly others?: readonly BackendSection[];
}

/** How long a marker that was seen is believed. */
const markerBelievedMs = 60_000;

/** A registered place of stored bytes that the configuration knows how to reach. */
export class Backend {
  readonly #database: Database;
  readonly #installation: Installation;
  readonly #section: BackendSection;
  readonly #guard: (driver: ObjectDriver) => ObjectDriver;
  #row: BackendRow;
  #driver: Promise<ObjectDriver> | undefined;
  /** When the marker was; what needs none has been seen for good. */
  #seenAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    database: Database,
    installation: Installation,
    section: BackendSection,
    row: BackendRow,
    guard: (driver: ObjectDriver) => ObjectDriver,
  ) {
    this.#database = database;
    this.#installation = installation;
    this.#section = section;
    this.#row = row;
    this.#guard = guard;
  }

  get id(): number {
    return this.#row.id;
  }

  get name(): string {
    return this.#row.driver;
  }

  /** For people: `s3 bucket=a url=https://…`. */
  get description(): string {
    return describeBackend(this.#row);
  }

  /** Connects on first use. A failure is not remembered. */
  async driver(call: Call): Promise<ObjectDriver> {
    if (this.#driver === undefined) {
      const { opener, config } = this.#section;
      const open = () => opener.open(config, { database: this.#database }, call);
      const opening = retry(open, { ...defaultRetryPolicy, attemptsMax: 3 }, call).then(this.#guard);
      this.#driver = opening;
      opening.catch(() => {
        this.#driver = undefined;
      });
    }
    return await this.#driver;
  }

  /**
   * The driver, for putting: the place is this installation's. The backend's id may be another afterwards, when the place turns out to be known
   * under another address.
   * @throws StowageError `BACKEND_FOREIGN`
   */
  async forWriting(call: Call): Promise<ObjectDriver> {
    if (performance.now() - this.#seenAtMs >= markerBelievedMs) await this.identify(call);
    return await this.driver(call);
  }

  /**
   * The driver, for deleting: as for putting, and this database is not a copy of the one that last wrote there. A copy's rows say of bytes that
   * they may go which the original has made visible since.
   * @throws StowageError `BACKEND_FOREIGN`
   */
  async forDeleting(call: Call): Promise<ObjectDriver> {
    const driver = await this.forWriting(call);
    const { identity, recordedIdentity, id } = this.#installation;
    if (!(await driver.capabilities(call)).isShared || recordedIdentity === identity) return driver;
    throw new StowageError(
      "BACKEND_FOREIGN",
      { driver: driver.name, place: this.description, found: "a database that was moved or restored", expected: id },
      {
        hint: "nothing is removed there; if no other copy of this database is in use, run: stowage objectstorage claim",
      },
    );
  }

  /** Looks at the marker of a shared place, or makes it; takes the row of the same place under another address if there is one. */
  async identify(call: Call): Promise<void> {
    const driver = await this.driver(call);
    if (!(await driver.capabilities(call)).isShared) {
      this.#seenAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    const { place, mark } = await this.#checkMarker(call);
    if (mark !== place.row.mark && !(await this.#become(mark, place.row))) {
      throw new TypeError(`a marker of this installation names an unknown backend: ${mark}`);
    }
    this.#seenAtMs = performance.now();
  }

  /** As {@link identify} for those who only look: a place that is new under this address may be known under another. Nothing is written there. */
  async recognize(call: Call): Promise<void> {
    const mark = await findOwnMark(await this.driver(call), this.#installation.id, call);
    const { row } = await this.#place(call);
    if (mark !== undefined && mark !== row.mark) await this.#become(mark, row);
  }

  /** Takes the row that is known by a mark instead of that of an alias; false when there is none. */
  async #become(mark: string, alias: BackendRow): Promise<boolean> {
    const known = (await readBackends(this.#database)).find((each) => each.mark === mark);
    if (known === undefined) return false;
    await mergeBackends(this.#database, known.id, alias);
    this.#row = { ...known, driver: alias.driver, settings: alias.settings };
    return true;
  }

  /** Whether nobody has written there yet under this address. */
  get isNew(): boolean {
    return this.#row.generation === 0;
  }

  /**
   * The id that the backend would have once it is written to; nothing is written.
   * @throws StowageError `BACKEND_FOREIGN`
   */
  async lookUp(call: Call): Promise<number> {
    const driver = await this.driver(call);
    if (!(await driver.capabilities(call)).isShared) return this.id;
    const mark = await findMark(await this.#place(call), call);
    return (await readBackends(this.#database)).find((each) => each.mark === mark)?.id ?? this.id;
  }

  /**
   * Whoever says that the marker is wrong may have looked at a row that another process of ours was just changing, or have read a wrong byte: only
   * twice is foreign.
   */
  async #checkMarker(call: Call): Promise<{ readonly place: Place; readonly mark: string }> {
    for (let wrong = 0; ; ) {
      const place = await this.#place(call);
      try {
        return { place, mark: await checkMarker(place, call) };
      } catch (error) {
        const now = (await this.#place(call)).row;
        const isChanged = now.generation !== place.row.generation || now.nextToken !== place.row.nextToken;
        if (!isCode(error, "BACKEND_FOREIGN") || (!isChanged && ++wrong === 2)) throw error;
      }
    }
  }

  /** @throws StowageError `BACKEND_FOREIGN` when it is another installation's */
  async claim(call: Call): Promise<boolean> {
    const driver = await this.driver(call);
    if (!(await driver.capabilities(call)).isShared) return false;
    await claimMarker(await this.#place(call), call);
    return true;
  }

  async #place(call: Call): Promise<Place> {
    const driver = await this.driver(call);
    this.#row = (await readBackend(this.#database, this.#row.id)) ?? this.#row;
    const { id } = this.#installation;
    return { database: this.#database, installation: id, row: this.#row, driver, description: this.description };
  }

  async close(): Promise<void> {
    const driver = await this.#driver?.catch(() => undefined);
    await driver?.[Symbol.asyncDispose]();
  }
}

/** All backends that the configuration names; others may be registered and hold objects. */
export class Backends implements AsyncDisposable {
  readonly #database: Database;
  readonly #all: readonly Backend[];
  readonly installation: Installation;
  readonly workingSet: Backend;
  readonly archive: Backend;
  readonly #compressions: ReadonlyMap<Backend, Compression>;

  private constructor(
    database: Database,
    installation: Installation,
    all: readonly Backend[],
    [workingSet, archive]: readonly [Backend, Backend],
    compressions: ReadonlyMap<Backend, Compression>,
  ) {
    this.#database = database;
    this.installation = installation;
    this.#all = all;
    this.workingSet = workingSet;
    this.archive = archive;
    this.#compressions = compressions;
  }

  /** Registers what the sections name; connects to none of it. */
  static async open(
    database: Database,
    sections: BackendSections,
    guard: (driver: ObjectDriver) => ObjectDriver,
  ): Promise<Backends> {
    let installation = await readInstallation(database);
    if (installation.recordedIdentity === undefined) {
      await recordIdentity(database, installation.identity, undefined);
      installation = await readInstallation(database);
    }
    const all: Backend[] = [];
    const compressions = new Map<Backend, Compression>();
    const add = async (section: BackendSection) => {
      const { name, settingsOf } = section.opener;
      const row = await registerBackend(database, name, settingsOf(section.config));
      let backend = all.find(({ id }) => id === row.id);
      if (backend === undefined) {
        backend = new Backend(database, installation, section, row, guard);
        all.push(backend);
        compressions.set(backend, section.compression ?? defaultCompression);
      }
      return backend;
    };
    const workingSet = await add(sections.workingSet);
    const archive = sections.archive === undefined ? workingSet : await add(sections.archive);
    for (const section of sections.others ?? []) await add(section);
    return new Backends(database, installation, all, [workingSet, archive], compressions);
  }

  /** The registered place of one of the sections. */
  async find(section: BackendSection): Promise<Backend> {
    const { name, settingsOf } = section.opener;
    const row = await registerBackend(this.#database, name, settingsOf(section.config));
    const backend = this.#all.find(({ id }) => id === row.id);
    if (backend === undefined) throw new TypeError("a section is asked for that the store was not opened with");
    return backend;
  }

  get all(): readonly Backend[] {
    return this.#all;
  }

  /** The one that lies in the database itself, if the configuration has it. */
  get own(): number | undefined {
    return this.#all.find(({ name }) => name === "db")?.id;
  }

  /** Where new objects of a bucket go. */
  for(bucket: string): Backend {
    return bucket === "analysis_archive" ? this.archive : this.workingSet;
  }

  compressionOf(backend: Backend): Compression {
    return this.#compressions.get(backend) ?? defaultCompression;
  }

  /** @throws StowageError `BACKEND_UNKNOWN` when the configuration names no such place */
  async of(backendId: number, call: Call): Promise<Backend> {
    const known = this.#all.find(({ id }) => id === backendId);
    if (known !== undefined) return known;
    // The same place may be configured under another address by now: its marker says so.
    for (const backend of this.#all) {
      await backend.identify(call);
      if (backend.id === backendId) return backend;
    }
    const row = await readBackend(this.#database, backendId);
    throw new StowageError(
      "BACKEND_UNKNOWN",
      { driver: row?.driver ?? "unknown", place: row === undefined ? String(backendId) : describeBackend(row) },
      { hint: "name it in services.catalog.other_object_stores" },
    );
  }

  /**
   * Finds out which places that look new are known under another address, before all that is recorded of them is compared with what lies there: else
   * their objects would be nobody's. A place that can't be reached is none, here.
   */
  async recognize(call: Call): Promise<void> {
    const known = await readBackends(this.#database);
    const unnamed = known.filter(({ id, generation }) => generation > 0 && !this.#all.some((each) => each.id === id));
    for (const backend of this.#all) {
      if (!backend.isNew || !unnamed.some(({ driver }) => driver === backend.name)) continue;
      await backend.recognize(call).catch((error: unknown) => {
        throwIfAborted(call);
        call.log.debug({ err: error, place: backend.description }, "a new place could not be looked at");
      });
    }
  }

  /** This database takes over from all its copies: their markers are replaced. Returns the backends that have markers. */
  async claim(call: Call): Promise<readonly Backend[]> {
    const claimed: Backend[] = [];
    for (const backend of this.#all) if (await backend.claim(call)) claimed.push(backend);
    const { identity, recordedIdentity } = this.installation;
    await recordIdentity(this.#database, identity, recordedIdentity);
    return claimed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((backend) => backend.close()));
  }
}

/** For people: `s3 bucket=a prefix=b`. The database has an order of its own for what it was given, so neither is taken. */
export function describeBackend({ driver, settings }: Pick<BackendRow, "driver" | "settings">): string {
  const sorted = Object.entries(settings).toSorted(([one], [other]) => (one < other ? -1 : 1));
  const parts = sorted.map(([key, value]) => `${key}=${String(value)}`);
  return [driver, ...parts].join(" ");
}

/** What {@link describeBackend} says of the backend that a section names. */
export function describeSection({ opener, config }: BackendSection): string {
  return describeBackend({ driver: opener.name, settings: opener.settingsOf(config) });
}
