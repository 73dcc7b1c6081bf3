import type { ErrorCode } from "../../errors/index.ts";
import { isCode, toStowageError } from "../../errors/index.ts";
import { WholeBody } from "../driver.ts";
import { forward, listedWithin, manyWithin, type PieceDriver } from "./pieces.ts";

export type DriverOperation = "capabilities" | "put" | "get" | "delete" | "purge" | "list";

export interface OperationCounts {
  /** Begun. */
  operations: number;
  /** Attempts after the first. */
  retries: number;
  /** Failed for good. What is not there when it is asked for is an answer, not a failure. */
  failures: number;
}

/** Counts since the driver was opened. Read by whoever has it; written by the guard only. */
export interface DriverMetrics {
  readonly of: Readonly<Record<DriverOperation, OperationCounts>>;
  readonly failuresByCode: Map<ErrorCode, number>;
  /** That readers were given. */
  bytesRead: number;
  /** That drivers took from bodies; those of attempts that failed count too. */
  bytesWritten: number;
}

export function createDriverMetrics(): DriverMetrics {
  const counts = (): OperationCounts => ({ operations: 0, retries: 0, failures: 0 });
  return {
    of: {
      capabilities: counts(),
      put: counts(),
      get: counts(),
      delete: counts(),
      purge: counts(),
      list: counts(),
    },
    failuresByCode: new Map(),
    bytesRead: 0,
    bytesWritten: 0,
  };
}

/** Counts what passes, but for the bytes that are written: they are counted where the driver takes them. */
export function withMetrics(driver: PieceDriver, metrics: DriverMetrics): PieceDriver {
  const counted = async <T>(operation: DriverOperation, work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (!isCode(error, "BACKEND_KEY_MISSING")) {
        metrics.of[operation].failures++;
        const { code } = toStowageError(error);
        metrics.failuresByCode.set(code, (metrics.failuresByCode.get(code) ?? 0) + 1);
      }
      throw error;
    }
  };
  const begun = <T>(operation: DriverOperation, work: () => Promise<T>): Promise<T> => {
    metrics.of[operation].operations++;
    return counted(operation, work);
  };
  async function* listed<T>(list: () => AsyncIterable<T>): AsyncGenerator<T> {
    metrics.of.list.operations++;
    yield* listedWithin(list(), (step) => counted("list", step));
  }
  const many = manyWithin(driver, (operation, call, work) => begun(operation, () => work(call)));
  const { getMany } = many;
  return {
    ...forward(driver),
    ...many,
    ...(getMany && {
      async getMany(keys, call) {
        const found = await getMany(keys, call);
        for (const { length } of found.values()) metrics.bytesRead += length;
        return found;
      },
    }),
    capabilities: (call) => begun("capabilities", () => driver.capabilities(call)),
    put: (key, body, call) => begun("put", () => driver.put(key, body, call)),
    get: (key, range, call) =>
      begun("get", async () => {
        const pieces = await driver.get(key, range, call);
        if (pieces instanceof WholeBody) {
          metrics.bytesRead += pieces.bytes.length;
          return pieces;
        }
        const next = async () => {
          const piece = await pieces.next();
          metrics.bytesRead += piece?.length ?? 0;
          return piece;
        };
        return { next: () => counted("get", next), destroy: () => pieces.destroy() };
      }),
    delete: (key, call) => begun("delete", () => driver.delete(key, call)),
    purge: (key, sizeBytes, call) => begun("purge", () => driver.purge(key, sizeBytes, call)),
    list: (after, call) => listed(() => driver.list(after, call)),
    listForeign: (call) => listed(() => driver.listForeign(call)),
  };
}
