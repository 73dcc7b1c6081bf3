import { createHash } from "node:crypto";
import { addAbortSignal, Readable } from "node:stream";
import { sql } from "kysely";
import { type Database, sqlStateOf, type Transaction } from "../../../db/index.ts";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { BodySource, ByteRange, DriverCapabilities, ObjectDriver, PhysicalKey, StoredBlob } from "../../driver.ts";

/** Large enough to make few rows, small enough that a few of them in memory don't matter. */
const chunkBytes = 256 * 1024;
const uniqueViolation = "23505";

/**
 * Blobs in PostgreSQL: rows of chunks, written in one transaction, so that a blob is there whole or not at all. The server digests what it has
 * received of each chunk, and PostgreSQL's own checksums guard it from there.
 */
export class DatabaseDriver implements ObjectDriver {
  readonly name = "db";
  readonly capabilities: DriverCapabilities = {
    // Positions are 4-byte integers; PostgreSQL's limit of a table (32 TiB) comes first.
    objectBytesMax: 2 ** 31 * chunkBytes,
    exclusivePut: true,
    serverDigest: true,
    listLagMs: 0,
  };
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    return this.#database.transaction(async (tx) => {
      await this.#claim(tx, key);
      const hash = createHash("sha256");
      let position = 0;
      let sizeBytes = 0;
      try {
        // A body that has stalled must not outlive its call.
        const stream = addAbortSignal(call.signal, await body.open(call));
        for await (const chunk of fixedChunks(stream, chunkBytes)) {
          throwIfAborted(call);
          sizeBytes += chunk.length;
          if (sizeBytes > (body.sizeBytes ?? sizeBytes)) break;
          hash.update(chunk);
          await this.#insertChunk(tx, key, position++, chunk);
        }
      } catch (error) {
        throwIfAborted(call);
        throw error;
      }
      if (sizeBytes !== (body.sizeBytes ?? sizeBytes)) {
        const reason = `the body has ${sizeBytes} bytes or more, ${body.sizeBytes} were announced`;
        throw new StowageError("BACKEND_FAILED", { driver: this.name, operation: "put", key, reason });
      }
      await tx.sql.updateTable("object_blobs").set({ bytes: sizeBytes }).where("physical_key", "=", key).execute();
      return { key, sizeBytes, digest: `sha256:${hash.digest("hex")}` };
    }, call);
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    const blob = await this.#database.sql
      .selectFrom("object_blobs")
      .select("bytes")
      .where("physical_key", "=", key)
      .executeTakeFirst();
    if (!blob) throw new StowageError("BACKEND_KEY_MISSING", { driver: this.name, key });
    const first = range?.first ?? 0;
    const end = Math.min(blob.bytes, range === undefined ? blob.bytes : range.last + 1);
    return Readable.from(this.#chunks(key, first, end, call), { objectMode: false, highWaterMark: chunkBytes });
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.sql.deleteFrom("object_blobs").where("physical_key", "=", key).execute();
      await tx.sql.deleteFrom("object_chunks").where("physical_key", "=", key).execute();
    }, call);
  }

  async *list(after: PhysicalKey | undefined, call: Call): AsyncGenerator<StoredBlob> {
    const pageSize = 1000;
    let last: string = after ?? "";
    for (;;) {
      throwIfAborted(call);
      const rows = await this.#database.sql
        .selectFrom("object_blobs")
        .select(["physical_key", "bytes"])
        .where(sql`physical_key collate "C"`, ">", last)
        .orderBy(sql`physical_key collate "C"`)
        .limit(pageSize)
        .execute();
      for (const row of rows) yield { key: row.physical_key as PhysicalKey, sizeBytes: row.bytes };
      if (rows.length < pageSize) return;
      last = (rows.at(-1) as { physical_key: string }).physical_key;
    }
  }

  /** The database is its opener's to close. */
  async [Symbol.asyncDispose](): Promise<void> {}

  async #claim(tx: Transaction, key: PhysicalKey): Promise<void> {
    try {
      await tx.sql
        .insertInto("object_blobs")
        .values({ physical_key: key, bytes: 0, created_at: sql<string>`now()` })
        .execute();
    } catch (error) {
      if (sqlStateOf(error) !== uniqueViolation) throw error;
      throw new StowageError("BACKEND_KEY_EXISTS", { driver: this.name, key }, { cause: error });
    }
  }

  async #insertChunk(tx: Transaction, key: PhysicalKey, position: number, chunk: Buffer): Promise<void> {
    const { digest } = await tx.sql
      .insertInto("object_chunks")
      .values({ physical_key: key, position, bytes: chunk })
      .returning(sql<Buffer>`sha256(bytes)`.as("digest"))
      .executeTakeFirstOrThrow();
    if (!digest.equals(createHash("sha256").update(chunk).digest())) {
      throw new StowageError("BACKEND_FAILED", {
        driver: this.name,
        operation: "put",
        key,
        reason: "a chunk arrived damaged",
      });
    }
  }

  /** Bytes from `first` up to `end`, a query for each chunk, one chunk ahead, so that a slow reader holds no connection. */
  async *#chunks(key: PhysicalKey, first: number, end: number, call: Call): AsyncGenerator<Buffer> {
    const fetch = async (position: number) => {
      throwIfAborted(call);
      const row = await this.#database.sql
        .selectFrom("object_chunks")
        .select("bytes")
        .where("physical_key", "=", key)
        .where("position", "=", position)
        .executeTakeFirst();
      if (!row) throw new StowageError("BACKEND_KEY_MISSING", { driver: this.name, key });
      return row.bytes;
    };
    let position = Math.floor(first / chunkBytes);
    let next = first < end ? fetch(position) : undefined;
    let ahead: Promise<Buffer> | undefined;
    try {
      while (next !== undefined) {
        const start = position * chunkBytes;
        const isLast = start + chunkBytes >= end;
        ahead = isLast ? undefined : fetch(position + 1);
        // Its failure counts when its turn comes.
        ahead?.catch(() => {});
        const bytes = await next;
        yield bytes.subarray(Math.max(0, first - start), Math.min(bytes.length, end - start));
        next = ahead;
        position++;
      }
    } finally {
      await ahead?.catch(() => {});
    }
  }
}

/** The stream in pieces of `size` bytes; the last may be shorter. */
async function* fixedChunks(body: Readable, size: number): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const piece of body) {
    parts.push(piece as Buffer);
    length += (piece as Buffer).length;
    if (length < size) continue;
    const joined = Buffer.concat(parts, length);
    let at = 0;
    for (; at + size <= length; at += size) yield joined.subarray(at, at + size);
    parts = at < length ? [joined.subarray(at)] : [];
    length -= at;
  }
  if (length > 0) yield Buffer.concat(parts, length);
}
