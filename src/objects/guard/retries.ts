import { createHash } from "node:crypto";
import { addAbortSignal, type Readable } from "node:stream";
import { isCode } from "../../errors/index.ts";
import { type Call, type RetryPolicy, retry } from "../../runtime/index.ts";
import type { BodySource, ObjectDriver, PhysicalKey, StoredBlob } from "../driver.ts";
import type { DriverOperation } from "./metrics.ts";
import { forward, PieceReader, streamOf } from "./pieces.ts";
import { trackBody } from "./tracked-body.ts";

export interface RetriesOptions {
  readonly policy: RetryPolicy;
  /** How often one stream may break and go on, so that a backend which breaks after each byte is not asked for ever. */
  readonly breaksMax: number;
  readonly onRetry: (operation: DriverOperation) => void;
}

/**
 * Repeats what failed with a code that says it may succeed later.
 *
 * - `get`: before the first byte, and when a stream breaks: bytes never change, so it goes on with the range that is missing.
 * - `put`: the body is opened again. A key that is taken after an attempt of our own has failed may hold what that attempt stored: if the bytes are
 *   the same, the put has succeeded. A failure of the body itself is its opener's, and is not repeated here.
 * - `list`: goes on after the last key.
 */
export function withRetries(driver: ObjectDriver, { policy, breaksMax, onRetry }: RetriesOptions): ObjectDriver {
  const repeated = async <T>(
    operation: DriverOperation,
    call: Call,
    work: (attempt: number) => Promise<T>,
  ): Promise<T> => {
    try {
      return await retry(work, policy, call, (error, attempt, delayMs) => {
        const fields = { driver: driver.name, operation, attempt, delayMs: Math.round(delayMs), code: error.code };
        call.log.debug({ ...fields, details: error.details }, "backend operation repeated");
        onRetry(operation);
      });
    } catch (error) {
      throw error instanceof Final ? error.failure : error;
    }
  };

  const repeating: ObjectDriver = {
    ...forward(driver),
    capabilities: (call) => repeated("capabilities", call, () => driver.capabilities(call)),
    delete: (key, call) => repeated("delete", call, () => driver.delete(key, call)),
    purge: (key, call) => repeated("purge", call, () => driver.purge(key, call)),

    async put(key, body, call) {
      return await repeated("put", call, async (attempt) => {
        const record = trackBody(body);
        try {
          return await driver.put(key, record.body, call);
        } catch (error) {
          if (record.failure() !== undefined || record.isWrongLength()) throw new Final(error);
          if (attempt === 1 || !isCode(error, "BACKEND_KEY_EXISTS")) throw error;
          // What of this fails has been repeated already.
          const same = await findSame(repeating, key, body, call).catch((failure: unknown) => {
            throw new Final(failure);
          });
          if (same === undefined) throw error;
          return same;
        }
      });
    },

    async get(key, range, call) {
      const start = range?.first ?? 0;
      let received = 0;
      let breaks = 0;
      const open = async () => {
        const rest = received === 0 ? range : { first: start + received, last: range?.last ?? Number.MAX_SAFE_INTEGER };
        return new PieceReader(await driver.get(key, rest, call));
      };
      let reader: PieceReader | undefined = await repeated("get", call, open);
      let isClosed = false;
      const pull = () =>
        repeated("get", call, async () => {
          if (reader === undefined) {
            // It broke between the last byte and the end. A range of nothing would be another one to some servers.
            if (range !== undefined && start + received > range.last) return undefined;
            const again = await open();
            if (isClosed) again.destroy();
            reader = again;
          }
          try {
            const piece = await reader.next();
            received += piece?.length ?? 0;
            return piece;
          } catch (error) {
            reader.destroy();
            reader = undefined;
            if (isClosed || ++breaks > breaksMax) throw new Final(error);
            throw error;
          }
        });
      return streamOf(pull, () => {
        isClosed = true;
        reader?.destroy();
      });
    },

    async *list(after, call) {
      let last = after;
      let blobs: AsyncIterator<StoredBlob> | undefined;
      try {
        for (;;) {
          const next = await repeated("list", call, async () => {
            blobs ??= driver.list(last, call)[Symbol.asyncIterator]();
            try {
              return await blobs.next();
            } catch (error) {
              blobs = undefined; // a generator that has thrown is at its end
              throw error;
            }
          });
          if (next.done) return;
          last = next.value.key;
          yield next.value;
        }
      } finally {
        await blobs?.return?.();
      }
    },
  };
  return repeating;
}

/** Wraps what must not be repeated, whatever its code says. */
class Final extends Error {
  readonly failure: unknown;

  constructor(failure: unknown) {
    super("final");
    this.failure = failure;
  }
}

/** What is stored under the key, if it is what the body has. */
async function findSame(
  driver: ObjectDriver,
  key: PhysicalKey,
  body: BodySource,
  call: Call,
): Promise<StoredBlob | undefined> {
  const wanted = await digestOf(addAbortSignal(call.signal, await body.open(call)));
  const found = await digestOf(await driver.get(key, undefined, call));
  if (wanted.digest !== found.digest) return undefined;
  return { key, sizeBytes: found.sizeBytes, digest: found.digest };
}

async function digestOf(stream: Readable): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const piece of stream as AsyncIterable<Buffer>) {
    hash.update(piece);
    sizeBytes += piece.length;
  }
  return { digest: `sha256:${hash.digest("hex")}`, sizeBytes };
}
