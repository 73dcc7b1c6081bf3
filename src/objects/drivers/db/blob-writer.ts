import { hash } from "node:crypto";
import { sql } from "kysely";
import { type Database, sqlStateOf, unhurried } from "../../../db/index.ts";
import { StowageError } from "../../../errors/index.ts";
import type { PhysicalKey, StatementPuts } from "../../driver.ts";

/** Large enough to make few rows, small enough that a few of them in memory don't matter. */
export const chunkBytes = 256 * 1024;
const uniqueViolation = "23505";

interface Chunk {
  readonly position: number;
  readonly bytes: Buffer;
  readonly sha256: Buffer;
}

export interface WriterOptions {
  /** Chunks that go to the server in one statement, just now. */
  readonly batchChunks: () => number;
  /** Told of bytes that the server has, and that nothing here looks at any more. */
  readonly onStored?: (bytes: Buffer) => void;
}

/**
 * Writes one blob. A connection is taken for each batch of chunks and given back, never held while the body is waited for: a body may itself be read
 * from this database, and would wait for ever once as many puts as there are connections had begun.
 *
 * | step | durable | a crash leaves | who goes on |
 * |---|---|---|---|
 * | first batch | chunk 0: its primary key is the claim on the physical key | chunks of no blob, which no reader and no listing sees | whoever deletes the key |
 * | further batches | more chunks, only while chunk 0 is there: what was deleted stays deleted, whatever a writer believed dead still sends | the same | the same |
 * | last batch | the blob's row, with the last chunks | a whole blob | – |
 *
 * Most blobs are one batch, which is first and last: one statement, whole or not at all.
 *
 * "Durable" is as far as this database remembers anything else: the server does not wait until the log is on the disk. What makes a blob visible is a
 * commit in the same database, which comes later in the same log, and is waited for.
 */
export class BlobWriter {
  readonly #database: Database;
  readonly #key: PhysicalKey;
  readonly #options: WriterOptions;
  #batch: Chunk[] = [];
  #position = 0;
  #isClaimed = false;
  #sending: Promise<void> = Promise.resolve();

  constructor(database: Database, key: PhysicalKey, options: WriterOptions) {
    this.#database = database;
    this.#key = key;
    this.#options = options;
  }

  /** Takes the next chunk. Waits while a batch is being sent and another is complete. */
  async add(bytes: Buffer, sha256: Buffer = hash("sha256", bytes, "buffer")): Promise<void> {
    if (this.#batch.length >= this.#options.batchChunks()) {
      await this.#sending;
      this.#sending = this.#send(this.#batch, undefined);
      this.#sending.catch(() => {}); // it is awaited before anything else is sent
      this.#batch = [];
    }
    this.#batch.push({ position: this.#position++, bytes, sha256 });
  }

  /** Sends the rest and makes the blob visible. */
  async finish(sizeBytes: number): Promise<void> {
    await this.#sending;
    await this.#send(this.#batch, sizeBytes);
  }

  /** Takes back what was written, if anything was. */
  async abandon(): Promise<void> {
    await this.#sending.catch(() => {}); // the failure that leads here, or one beside it
    // With the claim, a blob that has bytes is this one; one without bytes needs no claim, and may be that of another who was faster.
    if (this.#isClaimed) await deleteBlob(this.#database, this.#key, false);
  }

  async #send(batch: readonly Chunk[], sizeBytes: number | undefined): Promise<void> {
    const claim = this.#isClaimed
      ? sql`select ${unhurried} from object_chunks where physical_key = ${this.#key} and position = 0 for key share`
      : sql`select ${unhurried}`;
    const blob = sql`insert into object_blobs (physical_key, bytes) select ${this.#key}, ${sizeBytes}::bigint from claim`;
    if (batch.length === 0) await this.#run(sql`with claim as (${claim}) ${blob}`);
    else {
      const rows = batch.map(({ position, bytes }) => sql`(${position}::integer, ${bytes}::bytea)`);
      const received = await this.#run(sql<{ position: number; digest: Buffer }>`
        with claim as materialized (${claim}) ${sizeBytes === undefined ? sql`` : sql`, blob as (${blob})`}
        insert into object_chunks (physical_key, position, bytes)
        select ${this.#key}, chunk.position, chunk.bytes from claim, (values ${sql.join(rows)}) as chunk (position, bytes)
        returning position, sha256(bytes) as digest`);
      this.#isClaimed = this.#isClaimed || received.length > 0;
      if (received.length === 0) throw this.#failure("it was deleted while it was being written");
      const digests = new Map(received.map(({ position, digest }) => [position, digest]));
      for (const { position, sha256 } of batch) {
        if (!digests.get(position)?.equals(sha256)) throw this.#failure(`chunk ${position} arrived damaged`);
      }
      for (const { bytes } of batch) this.#options.onStored?.(bytes);
    }
  }

  async #run<T>(statement: ReturnType<typeof sql<T>>): Promise<readonly T[]> {
    try {
      return (await statement.execute(this.#database.sql)).rows;
    } catch (error) {
      if (sqlStateOf(error) !== uniqueViolation) throw error;
      throw new StowageError("BACKEND_KEY_EXISTS", { driver: "db", key: this.#key }, { cause: error });
    }
  }

  #failure(reason: string): StowageError {
    return new StowageError("BACKEND_FAILED", { driver: "db", operation: "put", key: this.#key, reason });
  }
}

/** Blobs of one chunk each. */
export const statementPuts: StatementPuts = {
  bytesMax: chunkBytes,
  expressions(blobs) {
    const rows = blobs.map(({ key, bytes, sha256 }) => sql`(${key}::text, ${bytes}::bytea, ${sha256}::bytea)`);
    return sql`
      chunk as (
        insert into object_chunks (physical_key, position, bytes)
        select blob.key, 0, blob.bytes from permit, (values ${sql.join(rows)}) as blob (key, bytes, sha256)
        where sha256(blob.bytes) = blob.sha256
        returning physical_key, octet_length(bytes) as bytes),
      stored as (
        insert into object_blobs (physical_key, bytes) select physical_key, bytes from chunk returning physical_key)`;
  },
};

/** Deletes a blob, or what there is of one; where `isAny` is false, only one that has bytes. */
export async function deleteBlob(database: Database, key: PhysicalKey, isAny: boolean): Promise<void> {
  await sql`select delete_object_blob(${key}, ${isAny})`.execute(database.sql);
}

/** Deletes blobs in one statement, or what there is of them; in one order, so that no two who delete the same wait for each other. */
export async function deleteBlobs(database: Database, keys: readonly PhysicalKey[]): Promise<void> {
  await sql`select delete_object_blob(key, true) from unnest(${keys.toSorted()}::text[]) as key`.execute(database.sql);
}
