import { randomInt } from "node:crypto";
import { type Kysely, sql as statement } from "kysely";
import { type Call, systemClock, throwIfAborted } from "../runtime/index.ts";
import type { Transaction } from "./database.ts";
import { isRepeatable } from "./failures.ts";
import type { Tables } from "./tables.ts";

const REPEATS_MAX = 5;

/**
 * Selected by a statement outside of a transaction: its commit is not waited for. It is durable no later than any commit after it that is: the server's
 * log keeps its order.
 */
export const unhurried = statement<string>`set_config('synchronous_commit', 'off', true)`;

/** See {@link Database.transaction}. A commit whose answer was lost is not repeated: it may have happened. */
export async function runTransaction<T>(
  sql: Kysely<Tables>,
  work: (tx: Transaction) => Promise<T>,
  call: Call,
): Promise<T> {
  for (let repeats = 0; ; repeats += 1) {
    throwIfAborted(call);
    try {
      return await sql.transaction().execute(async (transaction) => {
        const result = await work({ sql: transaction, call });
        throwIfAborted(call); // thrown inside, so that it rolls back
        return result;
      });
    } catch (error) {
      if (repeats === REPEATS_MAX || !isRepeatable(error)) throw error;
      call.log.debug({ repeats }, "transaction repeated");
      await systemClock.sleep(randomInt(5, 20 * 2 ** repeats), call);
    }
  }
}
