import { createHash } from "node:crypto";
import { isCode } from "../../errors/index.ts";
import { type Call, type RetryPolicy, retry } from "../../runtime/index.ts";
import { type PhysicalKey, type StoredBlob, WholeBody } from "../driver.ts";
import type { DriverOperation } from "./metrics.ts";
import { forward, onePiece, type PieceDriver, type PieceSource, type Pieces } from "./pieces.ts";
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
 * - `list`: goes on after the last key; `listForeign` begins anew and leaves out the pages that it has given.
 */
export function withRetries(driver: PieceDriver, { policy, breaksMax, onRetry }: RetriesOptions): PieceDriver {
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

  const repeating: PieceDriver = {
    ...forward(driver),
    capabilities: (call) => repeated("capabilities", call, () => driver.capabilities(call)),
    delete: (key, call) => repeated("delete", call, () => driver.delete(key, call)),
    purge: (key, sizeBytes, call) => repeated("purge", call, () => driver.purge(key, sizeBytes, call)),

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
        return await driver.get(key, rest, call);
      };
      const found = await repeated("get", call, open);
      if (found instanceof WholeBody) return found;
      let pieces: Pieces | undefined = found;
      let isClosed = false;
      const next = () =>
        repeated("get", call, async () => {
          if (pieces === undefined) {
            // It broke between the last byte and the end. A range of nothing would be another one to some servers.
            if (range !== undefined && start + received > range.last) return undefined;
            const again = await open();
            pieces = again instanceof WholeBody ? onePiece(again.bytes) : again;
            if (isClosed) pieces.destroy();
          }
          try {
            const piece = await pieces.next();
            received += piece?.length ?? 0;
            return piece;
          } catch (error) {
            pieces.destroy();
            pieces = undefined;
            if (isClosed || ++breaks > breaksMax) throw new Final(error);
            throw error;
          }
        });
      return {
        next,
        destroy() {
          isClosed = true;
          pieces?.destroy();
        },
      };
    },

    list(after, call) {
      let last = after;
      return listed(
        call,
        () => driver.list(last, call),
        ({ key }) => {
          last = key;
        },
      );
    },

    listForeign(call) {
      let seen = 0;
      return listed(
        call,
        () => dropped(driver.listForeign(call), seen),
        () => {
          seen++;
        },
      );
    },
  };

  /** @param open what is left of the listing */
  async function* listed<T>(call: Call, open: () => AsyncIterable<T>, pass: (item: T) => void): AsyncGenerator<T> {
    let items: AsyncIterator<T> | undefined;
    try {
      for (;;) {
        const next = await repeated("list", call, async () => {
          items ??= open()[Symbol.asyncIterator]();
          try {
            return await items.next();
          } catch (error) {
            items = undefined; // a generator that has thrown is at its end
            throw error;
          }
        });
        if (next.done) return;
        pass(next.value);
        yield next.value;
      }
    } finally {
      await items?.return?.();
    }
  }
  return repeating;
}

/** Without the first ones. */
async function* dropped<T>(items: AsyncIterable<T>, count: number): AsyncGenerator<T> {
  let index = 0;
  for await (const item of items) if (index++ >= count) yield item;
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
  driver: PieceDriver,
  key: PhysicalKey,
  body: PieceSource,
  call: Call,
): Promise<StoredBlob | undefined> {
  const wanted = await digestOf(await body.open(call));
  const found = await digestOf(await driver.get(key, undefined, call));
  if (wanted.digest !== found.digest) return undefined;
  return { key, sizeBytes: found.sizeBytes, digest: found.digest };
}

async function digestOf(found: Pieces | WholeBody): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
  const pieces = found instanceof WholeBody ? onePiece(found.bytes) : found;
  const hash = createHash("sha256");
  let sizeBytes = 0;
  try {
    for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) {
      hash.update(piece);
      sizeBytes += piece.length;
    }
  } finally {
    pieces.destroy();
  }
  return { digest: `sha256:${hash.digest("hex")}`, sizeBytes };
}
