import { createHash } from "node:crypto";
import type { Client } from "pg";
import { StowageError } from "../errors/index.ts";
import { type Call, createCall, throwIfAborted } from "../runtime/index.ts";
import type { HeldLock } from "./database.ts";
import { connectClient, type Endpoint } from "./endpoint.ts";
import { sqlStateOf, toStatementFailure } from "./failures.ts";

export type LockMode = "exclusive" | "shared";

const HEARTBEAT_MS = 5_000;
const HEARTBEAT_TIMEOUT_MS = 10_000;
const LOCK_NOT_AVAILABLE = "55P03";
const INT4_MAX = 2 ** 31 - 1;

/**
 * Takes the session advisory lock `name` on a connection of its own, so that the pool can't hand the connection to others, and the
 * lock lives exactly as long as the connection.
 * @returns `undefined` when others held it for all of `timeoutMs`
 */
export async function acquireLock(
  endpoint: Endpoint,
  name: string,
  mode: LockMode,
  timeoutMs: number,
  call: Call,
): Promise<HeldLock | undefined> {
  let onLoss = (_cause: Error): void => {};
  const client = await connectClient(endpoint, (error) => onLoss(error), call);
  client.on("end", () => onLoss(new Error("the connection ended")));
  if (!(await waitForLock(client, endpoint, name, mode, timeoutMs, call))) {
    await client.end();
    return undefined;
  }

  const lost = new AbortController();
  const heartbeat = setInterval(() => {
    const beat = { text: "select 1", query_timeout: HEARTBEAT_TIMEOUT_MS };
    client.query(beat).catch((error: Error) => onLoss(error));
  }, HEARTBEAT_MS);
  heartbeat.unref();
  onLoss = (cause) => {
    onLoss = () => {};
    clearInterval(heartbeat);
    lost.abort(
      new StowageError(
        "DB_LOCK_LOST",
        { lock: name },
        { cause, hint: "run the command again: nothing was left half done" },
      ),
    );
    void client.end().catch(() => {});
  };
  return {
    signal: lost.signal,
    async [Symbol.asyncDispose]() {
      if (lost.signal.aborted) return;
      onLoss = () => {};
      clearInterval(heartbeat);
      // The end of the connection frees the lock too, but a moment after we have gone.
      await client.query("select pg_advisory_unlock_all()").catch(() => {});
      await client.end().catch(() => {});
    },
  };
}

async function waitForLock(
  client: Client,
  endpoint: Endpoint,
  name: string,
  mode: LockMode,
  timeoutMs: number,
  call: Call,
): Promise<boolean> {
  const suffix = mode === "shared" ? "_shared" : "";
  // The wait is in the server. When the call is aborted the query is cancelled there, by a second connection, and fails here.
  const cancel = () => void cancelQuery(client, endpoint);
  call.signal.addEventListener("abort", cancel, { once: true });
  try {
    throwIfAborted(call);
    if (timeoutMs <= 0) {
      const sql = `select pg_try_advisory_lock${suffix}($1) as got`;
      const { rows } = await client.query<{ got: boolean }>(sql, [lockKey(name)]);
      return rows[0]?.got === true;
    }
    await client.query("select set_config('lock_timeout', $1, false)", [
      `${Math.min(Math.max(1, Math.ceil(timeoutMs)), INT4_MAX)}ms`,
    ]);
    await client.query(`select pg_advisory_lock${suffix}($1)`, [lockKey(name)]);
    return true;
  } catch (error) {
    if (sqlStateOf(error) === LOCK_NOT_AVAILABLE) return false;
    await client.end().catch(() => {});
    throwIfAborted(call);
    throw toStatementFailure(error, endpoint.description);
  } finally {
    call.signal.removeEventListener("abort", cancel);
  }
}

/** The first eight bytes of the name's SHA-256 as a signed 64-bit integer, in text. */
function lockKey(name: string): string {
  return createHash("sha256").update(`stowage lock ${name}`).digest().readBigInt64BE(0).toString();
}

async function cancelQuery(client: Client, endpoint: Endpoint): Promise<void> {
  const { processID } = client as Client & { processID?: number };
  try {
    const other = await connectClient(endpoint, () => {}, createCall());
    await other.query("select pg_cancel_backend($1)", [processID]);
    await other.end();
  } catch {
    await client.end().catch(() => {});
  }
}
