import { drivers } from "../../src/app/drivers.ts";
import { defaultCompression } from "../../src/config/index.ts";
import { type Database, openDatabase } from "../../src/db/index.ts";
import {
  type BackendSection,
  type DriverOpener,
  guard,
  type ObjectStore,
  openObjectStore,
  type StoreMaintenance,
} from "../../src/objects/index.ts";
import type { Call } from "../../src/runtime/index.ts";

/** A real backend, as it is told to other processes. */
export interface RealPlace {
  readonly driver: "db" | "localfs" | "s3";
  /** `storage_driver.config`. */
  readonly config: Readonly<Record<string, unknown>>;
}

export function sectionOf({ driver, config }: RealPlace): BackendSection {
  const definition = drivers.find(({ name }) => name === driver);
  if (definition === undefined) throw new Error(`no driver ${driver}`);
  // Codecs differ, so that objects are transcoded on their way.
  const compression = { ...defaultCompression, enabled: driver === "localfs", minSizeKbytes: 4 };
  return { opener: definition as DriverOpener, config: definition.schema.parse(config), compression };
}

/** Seconds that readers have; so many pass while a test waits for them. */
const graceSeconds = 2;

export interface Opened extends AsyncDisposable {
  readonly database: Database;
  readonly store: ObjectStore & StoreMaintenance;
}

/** A store whose new objects go to the first of the places. */
export async function openAt(dataDirectory: string, places: readonly RealPlace[], call: Call): Promise<Opened> {
  await using opening = new AsyncDisposableStack();
  const database = opening.use(await openDatabase({ kind: "embedded", dataDirectory }, { connectionsMax: 6 }, call));
  const [workingSet, ...others] = places.map(sectionOf) as [BackendSection, ...BackendSection[]];
  const sections = { workingSet, others };
  const store = opening.use(await openObjectStore({ database, sections, guard, retireGraceSeconds: graceSeconds }));
  const opened = opening.move();
  return { database, store, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}
