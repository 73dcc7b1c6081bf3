import type { Configuration } from "../config/index.ts";
import { type DatabaseLocation, openDatabase } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import {
  type BackendSection,
  type CheckStep,
  checkBackend,
  describeSection,
  guard,
  refusedCheck,
} from "../objects/index.ts";
import type { Call } from "../runtime/index.ts";
import { sectionsOf } from "./sections.ts";

export type StoreName = "object_store" | "analysis_archive";

/** One backend of a configuration, to be tried. */
export interface BackendCheck {
  /** The stores that lie there. */
  readonly stores: readonly StoreName[];
  /** For people. */
  readonly place: string;
  /** Tries everything that a store does there, each time anew. */
  run(call: Call): AsyncIterable<CheckStep>;
}

/** What `objectstorage check` works with: the backends that a configuration names, and the database, without the application on top. */
export interface StoreCheck extends AsyncDisposable {
  readonly backends: readonly BackendCheck[];
}

/**
 * Opens the database, since the `db` driver keeps its bytes there; its schema is made or brought up to date, and nothing is registered in it. A right that
 * is missing there is the first thing that the check has to tell.
 */
export async function openStoreCheck(
  options: { readonly configuration: Configuration; readonly database: DatabaseLocation },
  call: Call,
): Promise<StoreCheck> {
  const { workingSet, archive = workingSet } = await sectionsOf(options.configuration);
  const database = await openDatabase(options.database, {}, call).catch((error: unknown) => {
    if (isCode(error, "DB_DENIED")) return error;
    throw error;
  });
  const check = (section: BackendSection, ...stores: readonly StoreName[]): BackendCheck => ({
    stores,
    place: describeSection(section),
    run: async function* (under) {
      yield* database instanceof StowageError ? refusedCheck(database) : checkBackend(section, database, guard, under);
    },
  });
  const isSame = describeSection(workingSet) === describeSection(archive);
  return {
    backends: isSame
      ? [check(workingSet, "object_store", "analysis_archive")]
      : [check(workingSet, "object_store"), check(archive, "analysis_archive")],
    async [Symbol.asyncDispose]() {
      if (!(database instanceof StowageError)) await database[Symbol.asyncDispose]();
    },
  };
}
