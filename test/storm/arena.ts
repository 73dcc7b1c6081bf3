import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import type { LocationState, Transaction } from "../../src/db/index.ts";
import { isCode } from "../../src/errors/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import {
  type ObjectDriver,
  type ObjectRef,
  type ObjectStoreOptions,
  openObjectStore,
  type PhysicalKey,
  type ScrubReport,
  type StagedObject,
} from "../../src/objects/index.ts";
import { renewLeases } from "../../src/objects/rows/locations.ts";
import { type Call, createCall, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { startTestDatabase, type TestDatabase } from "../embedded-database.ts";
import { readIndependently } from "./independent-reader.ts";
import type { Store } from "./world.ts";

export type Backend = "files" | "database";

const call = createCall();
export const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };

/** What happens before or after a call of the driver: where another step comes between. */
export interface Gates {
  beforePut?: (key: PhysicalKey) => Promise<void>;
  afterPut?: (key: PhysicalKey) => Promise<void>;
  beforeGet?: (key: PhysicalKey) => Promise<void>;
  beforePurge?: (key: PhysicalKey) => Promise<void>;
  afterPurge?: (key: PhysicalKey) => Promise<void>;
  afterList?: () => Promise<void>;
}

/** A store on a real backend, whose steps a test brings into the order that it wants. Each gate opens once. */
export class Arena implements AsyncDisposable {
  readonly gates: Gates = {};
  readonly #test: TestDatabase;
  readonly #backend: Backend;
  readonly #directory: string;

  private constructor(test: TestDatabase, backend: Backend, directory: string) {
    this.#test = test;
    this.#backend = backend;
    this.#directory = directory;
  }

  static async open(backend: Backend, test?: TestDatabase): Promise<Arena> {
    const directory = mkdtempSync(join(tmpdir(), "stowage-arena-"));
    chmodSync(directory, 0o755);
    return new Arena(test ?? (await startTestDatabase()), backend, directory);
  }

  get backend(): Backend {
    return this.#backend;
  }

  async store(options: Partial<Omit<ObjectStoreOptions, "database" | "sections">> = {}): Promise<Store> {
    const opener = {
      name: this.#backend === "files" ? "localfs" : "db",
      settingsOf: () => (this.#backend === "files" ? { archive_data_dir: this.#directory } : {}),
      open: async () => this.#gated(await this.driver()),
    };
    const sections = { workingSet: { opener, config: {} } };
    const own = { retireGraceSeconds: 0, lateSeconds: 60 };
    return await openObjectStore({ database: this.#test.database, sections, ...own, ...options });
  }

  /** The real one, past all gates. */
  async driver(): Promise<ObjectDriver> {
    if (this.#backend === "database") return new DatabaseDriver(this.#test.database);
    return await openLocalFiles({ root: this.#directory, fileMode: 0o640, directoryMode: 0o750 }, call);
  }

  /** What is stored becomes something else, past the store. */
  async replace(key: PhysicalKey, change: (stored: Buffer) => Buffer): Promise<Buffer> {
    const driver = await this.driver();
    const stored = await buffer(await driver.get(key, undefined, call));
    await driver.purge(key, undefined, call);
    await driver.put(key, bodyOf(change(stored)), call);
    return stored;
  }

  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.#test.database.transaction(work, call);
  }

  stage(store: Store, content: string | Buffer, to = ref): Promise<StagedObject> {
    return store.stage(to, bodyOf(content), call);
  }

  async publish(store: Store, staged: readonly StagedObject[]): Promise<void> {
    await this.transaction((tx) => store.publish(tx, staged));
  }

  async put(store: Store, content: string | Buffer, to = ref): Promise<StagedObject> {
    const staged = await this.stage(store, content, to);
    await this.publish(store, [staged]);
    return staged;
  }

  async read(store: Store, from = ref): Promise<string | undefined> {
    try {
      return (await buffer((await store.get(from, call)).body)).toString();
    } catch (error) {
      if (isCode(error, "OBJECT_NOT_FOUND")) return undefined;
      throw error;
    }
  }

  async reap(store: Store): Promise<number> {
    const { blobsDeleted, failures } = await store.reap(100, call);
    for (const { error } of failures) throw error;
    return blobsDeleted;
  }

  async scrub(store: Store): Promise<ScrubReport> {
    const begin = () => silentProgress.begin("", undefined);
    return await store.scrub({ share: 1, restart: false, seed: 1, clock: systemClock, begin }, call);
  }

  async stateOf({ locationId }: StagedObject): Promise<LocationState | undefined> {
    const row = await this.#test.database.sql
      .selectFrom("locations")
      .select("state")
      .where("id", "=", locationId)
      .executeTakeFirst();
    return row?.state;
  }

  async countOf(state: LocationState): Promise<number> {
    return (await this.#test.database.sql.selectFrom("locations").select("id").where("state", "=", state).execute())
      .length;
  }

  /** As its writer does while it works; false when it is no longer its own. */
  async renew({ locationId }: StagedObject): Promise<boolean> {
    return (await renewLeases(this.#test.database, [locationId], 300)).includes(locationId);
  }

  /** For a lock that another session holds. */
  async isSomebodyWaiting(): Promise<boolean> {
    const { rows } = await sql`select 1 from pg_locks where not granted`.execute(this.#test.database.sql);
    return rows.length > 0;
  }

  /** Rows are older by so much. */
  async age(seconds: number): Promise<void> {
    await sql`update locations set state_since = state_since - make_interval(secs => ${seconds}),
      lease_until = lease_until - make_interval(secs => ${seconds}),
      proven_at = proven_at - make_interval(secs => ${seconds})`.execute(this.#test.database.sql);
  }

  async endLeases(): Promise<void> {
    await sql`update locations set lease_until = now() - interval '1 second' where state = 'pending'`.execute(
      this.#test.database.sql,
    );
  }

  /** Everything as it is, by a reader that shares no code with the store. */
  async violations(isReaped = false): Promise<readonly string[]> {
    const directories = this.#backend === "files" ? [this.#directory] : [];
    return (await readIndependently(this.#test.database, { directories, isReaped })).violations;
  }

  /** Leases and graces are over, everything goes that can; what is wrong then. */
  async leftovers(): Promise<readonly string[]> {
    await using store = await this.store();
    // What may still arrive is deleted twice.
    for (let pass = 0; pass < 2; pass++) {
      await this.age(10_000);
      await this.reap(store);
    }
    return await this.violations(true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#test.clear();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #gated(driver: ObjectDriver): ObjectDriver {
    const pass = async <Name extends keyof Gates>(name: Name, ...args: Parameters<NonNullable<Gates[Name]>>) => {
      // Whose the place is, is looked up before the steps that race.
      if (args[0]?.startsWith("0".repeat(24))) return;
      const gate = this.gates[name] as ((...parameters: unknown[]) => Promise<void>) | undefined;
      delete this.gates[name];
      await gate?.(...args);
    };
    return {
      name: driver.name,
      capabilities: (under) => driver.capabilities(under),
      async put(key, body, under) {
        await pass("beforePut", key);
        const stored = await driver.put(key, body, under);
        await pass("afterPut", key);
        return stored;
      },
      async get(key, range, under) {
        await pass("beforeGet", key);
        return await driver.get(key, range, under);
      },
      delete: (key, under) => driver.delete(key, under),
      async purge(key, sizeBytes, under) {
        await pass("beforePurge", key);
        await driver.purge(key, sizeBytes, under);
        await pass("afterPurge", key);
      },
      async *list(after, under) {
        for await (const blob of driver.list(after, under)) yield blob;
        await pass("afterList");
      },
      listForeign: (under) => driver.listForeign(under),
      [Symbol.asyncDispose]: () => driver[Symbol.asyncDispose](),
    };
  }
}

export function bodyOf(content: string | Buffer): { open: (call: Call) => Promise<Readable>; sizeBytes: number } {
  const bytes = Buffer.from(content as string);
  return { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
}
