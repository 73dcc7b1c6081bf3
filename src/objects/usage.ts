import type { Database } from "../db/index.ts";
import { type StowageError, toStowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { type Backend, describeBackend } from "./backends.ts";
import { readBackends } from "./rows/backends.ts";
import { type DatabaseSize, type KeptGroup, keptGroups, readDatabaseSize } from "./rows/usage.ts";
import { walk, walkForeign } from "./walk.ts";

/** What a backend really holds, against what the rows say of it. */
export interface BackendHolding {
  readonly id: number;
  /** For people. */
  readonly place: string;
  /** Whether the configuration names it. */
  readonly isConfigured: boolean;
  /** What is listed there, whatever its name; left out when nobody looked, or could. */
  readonly held?: {
    readonly blobs: number;
    readonly bytes: number;
    /** Of these, what rows explain. */
    readonly explainedBlobs: number;
    readonly explainedBytes: number;
    /** Of these, what has no name of a blob: what others have put there, and parts of puts that have not ended. */
    readonly foreignBlobs: number;
    readonly foreignBytes: number;
    /** What rows say is there and is not. */
    readonly missingBlobs: number;
    readonly missingBytes: number;
  };
  /** Why it could not be looked at. */
  readonly error?: StowageError;
}

export interface UsageReport {
  readonly groups: readonly KeptGroup[];
  readonly backends: readonly BackendHolding[];
  readonly database: DatabaseSize;
}

/** What is kept, where, and how much space that takes. Lists every configured backend unless `look` is false. */
export async function readUsage(
  database: Database,
  configured: readonly Backend[],
  look: boolean,
  call: Call,
): Promise<UsageReport> {
  const backends: BackendHolding[] = [];
  const groups = await keptGroups(database);
  for (const row of await readBackends(database)) {
    const backend = configured.find(({ id }) => id === row.id);
    const isReached = row.generation > 0 || row.nextToken !== undefined;
    // A misspelt address has a row, and nothing was ever there.
    if (backend === undefined && !isReached && !groups.some(({ backendId }) => backendId === row.id)) continue;
    const holding = { id: row.id, place: describeBackend(row), isConfigured: backend !== undefined };
    if (backend === undefined || !look) backends.push(holding);
    else backends.push({ ...holding, ...(await lookAt(database, backend, call)) });
  }
  return { groups, backends, database: await readDatabaseSize(database) };
}

async function lookAt(
  database: Database,
  backend: Backend,
  call: Call,
): Promise<Pick<BackendHolding, "held"> | Pick<BackendHolding, "error">> {
  const held = {
    ...{ blobs: 0, bytes: 0, explainedBlobs: 0, explainedBytes: 0 },
    ...{ foreignBlobs: 0, foreignBytes: 0, missingBlobs: 0, missingBytes: 0 },
  };
  const count = (sizeBytes: number, isExplained: boolean) => {
    held.blobs++;
    held.bytes += sizeBytes;
    if (!isExplained) return;
    held.explainedBlobs++;
    held.explainedBytes += sizeBytes;
  };
  try {
    const driver = await backend.driver(call);
    for await (const { listed, row } of walk(database, backend.id, driver, undefined, call)) {
      if (listed !== undefined) count(listed.sizeBytes, row !== undefined);
      if (listed === undefined && row?.located !== undefined && row.state !== "deleting") {
        held.missingBlobs++;
        held.missingBytes += row.located.storedBytes;
      }
    }
    for await (const { foreign, row } of walkForeign(database, backend.id, driver, call)) {
      count(foreign.sizeBytes, row !== undefined);
      held.foreignBlobs++;
      held.foreignBytes += foreign.sizeBytes;
    }
    return { held };
  } catch (error) {
    throwIfAborted(call);
    return { error: toStowageError(error) };
  }
}
