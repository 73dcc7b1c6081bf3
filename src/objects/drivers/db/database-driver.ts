import { createHash, hash } from "node:crypto";
import { addAbortSignal, Readable } from "node:stream";
import { sql } from "kysely";
import type { Database } from "../../../db/index.ts";
import { StowageError } from "../../../errors/index.ts";
import { type Call, freeAtOnce, throwIfAborted } from "../../../runtime/index.ts";
import {
  type BodySource,
  type ByteRange,
  type DoomedBlob,
  type DriverCapabilities,
  type ForeignBlob,
  type ObjectDriver,
  type PhysicalKey,
  type StoredBlob,
  WholeBody,
} from "../../driver.ts";
import { BlobWriter, chunkBytes, deleteBlob, deleteBlobs, statementPuts } from "./blob-writer.ts";
import { ChunkMemory, chunksMax } from "./chunk-memory.ts";

/** What is longer, or may be, is deleted alone: no statement is to be at work for long. */
const deletedTogetherBytesMax = 4 * 1024 * 1024;

const capabilities: DriverCapabilities = {
  // Positions are 4-byte integers; PostgreSQL's limit of a table (32 TiB) comes first.
  objectBytesMax: 2 ** 31 * chunkBytes,
  exclusivePut: true,
  serverDigest: true,
  isShared: false,
  listLagMs: 0,
};

/**
 * Blobs in PostgreSQL: rows of chunks, and a row that makes them a blob, so that it is there whole or not at all. The server digests what it has
 * received of each chunk, and PostgreSQL's own checksums guard it from there.
 */
export class DatabaseDriver implements ObjectDriver {
  readonly name = "db";
  readonly statementPuts = statementPuts;
  readonly #database: Database;
  readonly #memory = new ChunkMemory();

  constructor(database: Database) {
    this.#database = database;
  }

  async capabilities(): Promise<DriverCapabilities> {
    return capabilities;
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    if (body.bytes !== undefined) return await this.#putWhole(key, body.bytes, body.sha256, call);
    using share = this.#memory.share();
    const writer = new BlobWriter(this.#database, key, { batchChunks: () => share.chunks, onStored: freeAtOnce });
    return await finished(writer, call, async () => {
      const hasher = createHash("sha256");
      const announced = body.sizeBytes ?? Number.POSITIVE_INFINITY;
      let sizeBytes = 0;
      // A body that has stalled must not outlive its call.
      const stream = addAbortSignal(call.signal, await body.open(call));
      for await (const chunk of fixedChunks(stream, chunkBytes)) {
        sizeBytes += chunk.length;
        if (sizeBytes > announced) break;
        hasher.update(chunk);
        await writer.add(chunk);
        throwIfAborted(call);
      }
      if (sizeBytes !== (body.sizeBytes ?? sizeBytes)) {
        const reason = `the body has ${sizeBytes} bytes or more, ${body.sizeBytes} were announced`;
        throw new StowageError("BACKEND_FAILED", { driver: this.name, operation: "put", key, reason });
      }
      await writer.finish(sizeBytes);
      return { key, sizeBytes, digest: `sha256:${hasher.digest("hex")}` };
    });
  }

  async #putWhole(key: PhysicalKey, bytes: Buffer, known: Buffer | undefined, call: Call): Promise<StoredBlob> {
    const digest = known ?? hash("sha256", bytes, "buffer");
    const writer = new BlobWriter(this.#database, key, { batchChunks: () => chunksMax });
    return await finished(writer, call, async () => {
      for (let at = 0; at < bytes.length; at += chunkBytes) {
        const chunk = bytes.subarray(at, at + chunkBytes);
        await writer.add(chunk, chunk.length === bytes.length ? digest : undefined);
      }
      await writer.finish(bytes.length);
      return { key, sizeBytes: bytes.length, digest: `sha256:${digest.toString("hex")}` };
    });
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    throwIfAborted(call);
    // All that there is of a small blob, and of a larger one the length of its chunks, which may be that of another version of this driver.
    const [blob] = await this.#database.binaryRows(`
      select blob.bytes, octet_length(chunk.bytes), case when blob.bytes <= ${chunkBytes} then chunk.bytes end
      from object_blobs as blob left join object_chunks as chunk on chunk.physical_key = blob.physical_key and chunk.position = 0
      where blob.physical_key = '${hexOf(key)}'`);
    const sizeBytes = blob?.[0] && Number(blob[0].readBigInt64BE());
    const stride = blob?.[1]?.readInt32BE();
    const whole = blob?.[2];
    if (sizeBytes === undefined || sizeBytes === null || (sizeBytes > 0 && !stride)) {
      throw new StowageError("BACKEND_KEY_MISSING", { driver: this.name, key });
    }
    const first = range?.first ?? 0;
    const end = Math.min(sizeBytes, range === undefined ? sizeBytes : range.last + 1);
    if (!stride || first >= end) return new WholeBody(Buffer.alloc(0));
    if (whole) return new WholeBody(whole.subarray(first, end));
    return Readable.from(this.#chunks(key, stride, first, end, call), { objectMode: false, highWaterMark: stride });
  }

  /** Those of one chunk. */
  async getMany(keys: readonly PhysicalKey[], call: Call): Promise<ReadonlyMap<PhysicalKey, Buffer>> {
    throwIfAborted(call);
    if (keys.length === 0) return new Map();
    const rows = await this.#database.binaryRows(`
      select blob.physical_key, chunk.bytes
      from object_blobs as blob join object_chunks as chunk on chunk.physical_key = blob.physical_key and chunk.position = 0
      where blob.physical_key in (${keys.map((key) => `'${hexOf(key)}'`).join()}) and blob.bytes <= ${chunkBytes}
        and octet_length(chunk.bytes) = blob.bytes`);
    return new Map(rows.map(([key, bytes]) => [String(key) as PhysicalKey, bytes as Buffer]));
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    throwIfAborted(call);
    await deleteBlob(this.#database, key, true);
  }

  /** Chunks of no blob are deleted with the rest. */
  purge(key: PhysicalKey, _sizeBytes: number | undefined, call: Call): Promise<void> {
    return this.delete(key, call);
  }

  async purgeMany(blobs: readonly DoomedBlob[], call: Call): Promise<ReadonlySet<PhysicalKey>> {
    throwIfAborted(call);
    const isShort = ({ sizeBytes = Number.POSITIVE_INFINITY }: DoomedBlob) => sizeBytes <= deletedTogetherBytesMax;
    const keys = blobs.filter(isShort).map(({ key }) => key);
    if (keys.length > 0) await deleteBlobs(this.#database, keys);
    return new Set(keys);
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

  /** Chunks of no blob, chunks behind the end of one, and blobs whose chunks have not the length that their row says. */
  async *listForeign(call: Call): AsyncGenerator<readonly ForeignBlob[]> {
    const pageSize = 1000;
    let last = "";
    for (;;) {
      throwIfAborted(call);
      const { rows } = await sql<{ key: string; held: number; bytes: number | null }>`
        with page as materialized (
          select physical_key, sum(octet_length(bytes))::bigint as held from object_chunks
          where physical_key > ${last} group by physical_key order by physical_key limit ${pageSize})
        select physical_key as key, held, bytes from page left join object_blobs using (physical_key)
        order by physical_key`.execute(this.#database.sql);
      yield rows.flatMap(({ key, held, bytes }): ForeignBlob[] => {
        if (bytes === null) return [{ name: `object_chunks ${key}`, sizeBytes: held, partOf: key as PhysicalKey }];
        if (held > bytes) return [{ name: `object_chunks ${key} behind byte ${bytes}`, sizeBytes: held - bytes }];
        return held < bytes ? [{ name: `object_blobs ${key}: ${bytes} bytes, of ${held} there`, sizeBytes: 0 }] : [];
      });
      const end = rows.at(-1);
      if (end === undefined || rows.length < pageSize) return;
      last = end.key;
    }
  }

  /** The database is its opener's to close. */
  async [Symbol.asyncDispose](): Promise<void> {}

  /** Bytes from `first` up to `end`, a few chunks in each query, one query ahead, so that a slow reader holds no connection. */
  async *#chunks(key: PhysicalKey, stride: number, first: number, end: number, call: Call): AsyncGenerator<Buffer> {
    using share = this.#memory.share();
    let position = Math.floor(first / stride);
    const positions = Math.ceil(end / stride);
    let asked = position;
    const ask = () => {
      const from = asked;
      asked = Math.min(from + share.chunks, positions);
      if (from === asked) return undefined;
      const rows = this.#rows(key, from, asked, call);
      // Its failure counts when its turn comes.
      rows.catch(() => {});
      return rows;
    };
    let next = ask();
    let ahead: typeof next;
    try {
      while (next !== undefined) {
        ahead = ask();
        for (const bytes of await next) {
          throwIfAborted(call);
          const start = position * stride;
          yield bytes.subarray(Math.max(0, first - start), Math.min(bytes.length, end - start));
          position++;
        }
        next = ahead;
      }
    } finally {
      await ahead?.catch(() => {});
    }
  }

  /** The chunks from one position up to another. */
  async #rows(key: PhysicalKey, from: number, to: number, call: Call): Promise<readonly Buffer[]> {
    throwIfAborted(call);
    const rows = await this.#database.binaryRows(`
      select bytes from object_chunks where physical_key = '${hexOf(key)}'
        and position >= ${from} and position < ${to} order by position`);
    if (rows.length < to - from) throw new StowageError("BACKEND_KEY_MISSING", { driver: this.name, key });
    return rows.flatMap(([bytes]) => bytes ?? []);
  }
}

/** What a writer writes; of what failed, nothing stays. */
async function finished<T>(writer: BlobWriter, call: Call, work: () => Promise<T>): Promise<T> {
  try {
    throwIfAborted(call);
    return await work();
  } catch (error) {
    await writer.abandon();
    throwIfAborted(call);
    throw error;
  }
}

/** The key as it may stand in a statement: what is no hexadecimal number never does. */
function hexOf(key: PhysicalKey): string {
  if (!/^[0-9a-f]+$/.test(key)) throw new TypeError("a physical key is a hexadecimal number");
  return key;
}

/** The stream in pieces of `size` bytes, each with its memory for itself; the last may be shorter. */
async function* fixedChunks(body: Readable, size: number): AsyncGenerator<Buffer> {
  let chunk = Buffer.allocUnsafeSlow(size);
  let length = 0;
  for await (const piece of body) {
    for (let at = 0; at < (piece as Buffer).length; ) {
      const copied = (piece as Buffer).copy(chunk, length, at);
      at += copied;
      length += copied;
      if (length < size) continue;
      yield chunk;
      chunk = Buffer.allocUnsafeSlow(size);
      length = 0;
    }
  }
  if (length > 0) yield chunk.subarray(0, length);
}
