import { createHash } from "node:crypto";
import { addAbortSignal, Readable } from "node:stream";
import { StowageError } from "../../src/errors/index.ts";
import type {
  BodySource,
  ByteRange,
  DriverCapabilities,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "../../src/objects/index.ts";
import { type Call, throwIfAborted } from "../../src/runtime/index.ts";

const pieceBytes = 1024;
/** What is longer is not read many at once. */
const manyBytesMax = 64 * 1024;

/** A driver that keeps its promises, in memory: what faults are planted in, and what others are compared with. */
export class MemoryDriver implements ObjectDriver {
  readonly name = "memory";
  readonly blobs = new Map<PhysicalKey, Buffer>();
  /** What else lies there. */
  readonly foreign: ForeignBlob[] = [];

  async capabilities(): Promise<DriverCapabilities> {
    return {
      objectBytesMax: Number.MAX_SAFE_INTEGER,
      exclusivePut: true,
      serverDigest: true,
      isShared: true,
      listLagMs: 0,
    };
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    throwIfAborted(call);
    try {
      const pieces: Buffer[] = [];
      let sizeBytes = 0;
      for await (const piece of addAbortSignal(call.signal, await body.open(call)) as AsyncIterable<Buffer>) {
        pieces.push(Buffer.from(piece));
        sizeBytes += piece.length;
        if (sizeBytes > (body.sizeBytes ?? sizeBytes)) break;
      }
      if (sizeBytes !== (body.sizeBytes ?? sizeBytes)) {
        const reason = `the body has ${sizeBytes} bytes or more, ${body.sizeBytes} were announced`;
        throw new StowageError("BACKEND_FAILED", { driver: this.name, operation: "put", key, reason });
      }
      throwIfAborted(call);
      if (this.blobs.has(key)) throw new StowageError("BACKEND_KEY_EXISTS", { driver: this.name, key });
      const bytes = Buffer.concat(pieces);
      this.blobs.set(key, bytes);
      return { key, sizeBytes, digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}` };
    } catch (error) {
      throwIfAborted(call);
      throw error;
    }
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    throwIfAborted(call);
    const bytes = this.blobs.get(key);
    if (bytes === undefined) throw new StowageError("BACKEND_KEY_MISSING", { driver: this.name, key });
    const asked = range === undefined ? bytes : bytes.subarray(range.first, range.last + 1);
    const pieces = function* () {
      for (let at = 0; at < asked.length; at += pieceBytes) {
        throwIfAborted(call);
        yield asked.subarray(at, at + pieceBytes);
      }
    };
    return Readable.from(pieces(), { objectMode: false, highWaterMark: 1 });
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    throwIfAborted(call);
    this.blobs.delete(key);
  }

  purge(key: PhysicalKey, _sizeBytes: number | undefined, call: Call): Promise<void> {
    return this.delete(key, call);
  }

  getMany?: NonNullable<ObjectDriver["getMany"]> = async (keys, call) => {
    throwIfAborted(call);
    return new Map(
      keys.flatMap((key) => {
        const bytes = this.blobs.get(key);
        return bytes === undefined || bytes.length > manyBytesMax ? [] : [[key, Buffer.from(bytes)]];
      }),
    );
  };

  purgeMany?: NonNullable<ObjectDriver["purgeMany"]> = async (blobs, call) => {
    throwIfAborted(call);
    for (const { key } of blobs) this.blobs.delete(key);
    return new Set(blobs.map(({ key }) => key));
  };

  async *list(after: PhysicalKey | undefined, call: Call): AsyncGenerator<StoredBlob> {
    for (const key of [...this.blobs.keys()].sort()) {
      throwIfAborted(call);
      const sizeBytes = this.blobs.get(key)?.length;
      if (key > (after ?? "") && sizeBytes !== undefined) yield { key, sizeBytes };
    }
  }

  async *listForeign(call: Call): AsyncGenerator<readonly ForeignBlob[]> {
    throwIfAborted(call);
    yield this.foreign;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
