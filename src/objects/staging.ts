import { randomUUID } from "node:crypto";
import type { Database } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { announce, type Call } from "../runtime/index.ts";
import type { Backend, Backends } from "./backends.ts";
import type { Codec } from "./codec.ts";
import { Digester } from "./digester.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { formatHeader } from "./envelope.ts";
import { Gathering, gatheredMax } from "./gathering.ts";
import { Leases, leaseLost } from "./leases.ts";
import { createPhysicalKey } from "./physical-key.ts";
import { type IntendedLocation, insertPending, type Proof, recordProofs } from "./rows/locations.ts";
import { StatementStaging } from "./statement-staging.ts";
import type { ObjectBody, ObjectRef, StagedObject } from "./store.ts";
import { type Written, writtenBody, writtenShort } from "./written-body.ts";

/** Stores bodies at new locations, where nobody sees them. */
export class Staging implements Disposable {
  readonly #database: Database;
  readonly #backends: Backends;
  readonly #leaseSeconds: number;
  readonly #leases: Leases;
  readonly #intents: Gathering<IntendedLocation, { readonly id: number; readonly backendId: number }>;
  readonly #proofs: Gathering<Proof, boolean>;
  /** Buckets whose objects an online migration sends elsewhere, as the last put of each knows. */
  readonly #redirected = new Set<string>();
  /** One at the most: the database itself. */
  readonly #inStatements = new Map<Backend, StatementStaging>();

  constructor(database: Database, backends: Backends, leaseSeconds: number) {
    this.#database = database;
    this.#backends = backends;
    this.#leaseSeconds = leaseSeconds;
    this.#leases = new Leases(database, leaseSeconds);
    this.#intents = new Gathering(gatheredMax, (wanted) => insertPending(database, wanted, backends.own, leaseSeconds));
    this.#proofs = new Gathering(gatheredMax, async (proofs) => {
      const pending = await recordProofs(database, proofs, leaseSeconds);
      return proofs.map(({ locationId }) => pending.has(locationId));
    });
  }

  async stage(ref: ObjectRef, body: ObjectBody, call: Call): Promise<StagedObject> {
    const configured = this.#backends.for(ref.bucket);
    const driver = await configured.forWriting(call);
    const inStatements = this.#redirected.has(ref.bucket) ? undefined : this.#inStatementsAt(configured, driver);
    return (await inStatements?.stage(ref, body, call)) ?? (await this.#stageInSteps(configured, ref, body, call));
  }

  /** The intent is durable before the bytes, these before the proof. */
  async #stageInSteps(configured: Backend, ref: ObjectRef, body: ObjectBody, call: Call): Promise<StagedObject> {
    const physicalKey = createPhysicalKey();
    const location = { backendId: configured.id, physicalKey, ref, writer: randomUUID() };
    const { id: locationId, backendId } = await this.#intents.ask(location);
    announce("objects intended", { locationId });
    if (backendId === configured.id) this.#redirected.delete(ref.bucket);
    else this.#redirected.add(ref.bucket);
    const backend = await this.#backends.of(backendId, call);
    const driver = await backend.forWriting(call);
    using lease = this.#leases.keep(ref, locationId, call);
    const compression = this.#backends.compressionOf(backend);
    const header = this.#headerOf(ref, locationId);
    const { source, written } =
      (await writtenShort(body, compression, header, lease.call)) ?? writtenBody(body, compression, header);
    const stored = await driver.put(physicalKey, source, lease.call);
    announce("objects stored", { locationId });
    await prove(driver, physicalKey, stored, written(), lease.call);
    if (!(await this.#proofs.ask({ locationId, ...written() }))) throw leaseLost(ref);
    announce("objects proven", { locationId });
    const { contentDigest, contentBytes, storedBytes } = written();
    return { ref, locationId, contentDigest, contentBytes, storedBytes };
  }

  #inStatementsAt(backend: Backend, { statementPuts }: ObjectDriver): StatementStaging | undefined {
    const known = this.#inStatements.get(backend);
    if (known !== undefined || statementPuts === undefined) return known;
    const made = new StatementStaging(
      this.#database,
      {
        backendId: backend.id,
        puts: statementPuts,
        compression: this.#backends.compressionOf(backend),
        headerOf: (ref, locationId) => this.#headerOf(ref, locationId),
      },
      this.#leaseSeconds,
    );
    this.#inStatements.set(backend, made);
    return made;
  }

  #headerOf({ account, bucket, key }: ObjectRef, location: number): (codec: Codec) => Buffer {
    const installation = this.#backends.installation.id;
    return (codec) => formatHeader({ installation, location, account, bucket, key, codec });
  }

  [Symbol.dispose](): void {
    this.#leases[Symbol.dispose]();
  }
}

/** By what the backend says that it stored, or by reading it back. */
async function prove(
  driver: ObjectDriver,
  key: PhysicalKey,
  stored: { readonly sizeBytes: number; readonly digest?: string },
  { storedDigest, storedBytes }: Written,
  call: Call,
): Promise<void> {
  const proven = stored.digest ?? (await readBack(driver, key, call));
  if (proven === storedDigest && stored.sizeBytes === storedBytes) return;
  throw new StowageError("BACKEND_FAILED", {
    driver: driver.name,
    operation: "put",
    key,
    reason: `stored ${proven} (${stored.sizeBytes} bytes) instead of ${storedDigest} (${storedBytes} bytes)`,
  });
}

async function readBack(driver: ObjectDriver, key: PhysicalKey, call: Call): Promise<string> {
  const digester = new Digester();
  for await (const chunk of await driver.get(key, undefined, call)) digester.update(chunk as Buffer);
  return digester.digest();
}
