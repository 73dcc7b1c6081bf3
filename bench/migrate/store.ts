import { drivers } from "../../src/app/drivers.ts";
import { type Database, openDatabase } from "../../src/db/index.ts";
import { type MigrationOrder, Migrations } from "../../src/migration/index.ts";
import {
  type BackendSection,
  type DriverOpener,
  guard,
  type ObjectRef,
  type ObjectStore,
  openObjectStore,
  type StoreMaintenance,
} from "../../src/objects/index.ts";
import { createCall, systemClock } from "../../src/runtime/index.ts";

/** A backend, as it is told to other processes. */
export interface Place {
  readonly driver: string;
  /** `storage_driver.config`. */
  readonly config: Readonly<Record<string, unknown>>;
}

export const call = createCall();

function sectionOf({ driver, config }: Place): BackendSection {
  const definition = drivers.find(({ name }) => name === driver);
  if (definition === undefined) throw new Error(`no driver ${driver}`);
  return { opener: definition as DriverOpener, config: definition.schema.parse(config) };
}

/** Readers of an online migration have so long. */
const graceSeconds = 1;

export interface Opened extends AsyncDisposable {
  readonly database: Database;
  readonly store: ObjectStore & StoreMaintenance;
}

/** A store whose new objects go to the first of the places. */
export async function openAt(dataDirectory: string, places: readonly Place[]): Promise<Opened> {
  await using opening = new AsyncDisposableStack();
  const database = opening.use(await openDatabase({ kind: "embedded", dataDirectory }, {}, call));
  const [workingSet, ...others] = places.map(sectionOf) as [BackendSection, ...BackendSection[]];
  const sections = { workingSet, others };
  const store = opening.use(await openObjectStore({ database, sections, guard, retireGraceSeconds: graceSeconds }));
  const opened = opening.move();
  return { database, store, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** Makes the container of a place where its configuration asks for that. */
export async function make(dataDirectory: string, place: Place): Promise<void> {
  await using opened = await openAt(dataDirectory, [place]);
  await opened.store.copies.backendOf(sectionOf(place), call);
}

export function refOf(index: number): ObjectRef {
  return { account: "bench", bucket: "b", key: String(index) };
}

export interface Migrated {
  readonly planMs: number;
  readonly runMs: number;
}

export async function migrate(
  { database, store }: Opened,
  [from, to]: readonly [Place, Place],
  options: { readonly concurrency: number | "auto"; readonly isOnline: boolean; readonly isPlanOnly: boolean },
): Promise<Migrated> {
  const migrations = new Migrations(database, store);
  const source = await store.copies.backendOf(sectionOf(from), call);
  const destination = await store.copies.backendOf(sectionOf(to), call);
  const order: MigrationOrder = {
    selection: { sourceBackendId: source, destinationBackendId: destination, archiveBackendId: destination },
    source: { driver: from.driver, place: from.driver },
    destination: { driver: to.driver, place: to.driver },
    keepsSources: false,
    verify: "readback",
    isOnline: options.isOnline,
    files: ["source.yaml", "destination.yaml"],
  };
  const begun = performance.now();
  const id = await migrations.plan(order, "bench", call);
  const planMs = performance.now() - begun;
  if (options.isPlanOnly) return { planMs, runMs: 0 };
  const { concurrency } = options;
  const pace = { concurrency, executor: "bench", clock: systemClock, passesMax: 1, watch: () => {} };
  const { state, counts } = await migrations.run(id, pace, call);
  if (state !== "complete") throw new Error(`the migration ends ${state}: ${JSON.stringify(counts)}`);
  return { planMs, runMs: performance.now() - begun - planMs };
}
