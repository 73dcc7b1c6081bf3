import { messageOf, StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { type PhysicalKey, WholeBody } from "../driver.ts";
import { abortReason } from "./abort-reason.ts";
import { forward, listedWithin, manyWithin, type PieceDriver } from "./pieces.ts";
import { trackBody } from "./tracked-body.ts";

/**
 * Failures say which driver, operation and key they are about; what is no `StowageError` becomes `BACKEND_FAILED`, with the original as its cause.
 * Three kinds pass as they are: an aborted call's reason, a body's own failure, and codes that are not of the family `BACKEND`.
 */
export function withErrorContext(driver: PieceDriver): PieceDriver {
  const describe = (error: unknown, operation: string, key: PhysicalKey | undefined, call: Call): unknown => {
    if (call.signal.aborted) return abortReason(call);
    const about = { driver: driver.name, operation, ...(key === undefined ? {} : { key }) };
    if (!(error instanceof StowageError)) {
      return new StowageError("BACKEND_FAILED", { ...about, reason: messageOf(error) }, { cause: error });
    }
    if (!error.code.startsWith("BACKEND_") || Object.keys(about).every((name) => name in error.details)) return error;
    return new StowageError(
      error.code,
      { ...about, ...error.details },
      { cause: error, ...(error.hint === undefined ? {} : { hint: error.hint }) },
    );
  };
  const about = async <T>(operation: string, key: PhysicalKey | undefined, call: Call, work: () => Promise<T>) => {
    try {
      return await work();
    } catch (error) {
      throw describe(error, operation, key, call);
    }
  };
  return {
    ...forward(driver),
    ...manyWithin(driver, (operation, call, work) => about(operation, undefined, call, () => work(call))),
    capabilities: (call) => about("capabilities", undefined, call, () => driver.capabilities(call)),
    async put(key, body, call) {
      const record = trackBody(body);
      try {
        return await driver.put(key, record.body, call);
      } catch (error) {
        const own = record.failure();
        throw own && !call.signal.aborted ? own.error : describe(error, "put", key, call);
      }
    },
    get: (key, range, call) =>
      about("get", key, call, async () => {
        const pieces = await driver.get(key, range, call);
        if (pieces instanceof WholeBody) return pieces;
        return { next: () => about("get", key, call, () => pieces.next()), destroy: () => pieces.destroy() };
      }),
    delete: (key, call) => about("delete", key, call, () => driver.delete(key, call)),
    purge: (key, sizeBytes, call) => about("purge", key, call, () => driver.purge(key, sizeBytes, call)),
    list: (after, call) => listedWithin(driver.list(after, call), (step) => about("list", undefined, call, step)),
    listForeign: (call) => listedWithin(driver.listForeign(call), (step) => about("list", undefined, call, step)),
  };
}
