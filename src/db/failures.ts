import { isCode, messageOf, StowageError } from "../errors/index.ts";

/** SQLSTATE "the database system is starting up", "is shutting down", "is in recovery mode". */
export const CANNOT_CONNECT_NOW = "57P03";

/** The SQLSTATE of a failed statement, wherever in the chain of causes it stands. */
export function sqlStateOf(error: unknown): string | undefined {
  for (let current = error, depth = 0; current instanceof Error && depth < 8; current = current.cause, depth += 1) {
    const { code } = current as Error & { code?: unknown };
    if (!(current instanceof StowageError) && typeof code === "string" && /^[0-9A-Z]{5}$/.test(code)) return code;
  }
  return undefined;
}

/**
 * What `pg` threw as an error of ours; the cause is kept. Messages of `pg` name user, host and database, never the password.
 * @param database the database's description
 */
export function toDatabaseFailure(error: unknown, database: string): StowageError {
  if (error instanceof StowageError) return error;
  const state = sqlStateOf(error);
  const reason = reasonOf(error);
  if (state?.startsWith("28")) {
    return new StowageError(
      "ACCESS_DENIED",
      { host: database, reason },
      { cause: error, hint: "check user and password in the database URL" },
    );
  }
  // 3D000: no such database; 08: connection exceptions; 57P0x: the server is going or coming; 53300: too many connections
  if (state === undefined || /^(3D000|08...|57P0.|53300)$/.test(state)) {
    return new StowageError(
      "DB_UNREACHABLE",
      { database, reason },
      { cause: error, hint: "check that the database is running and that its URL is right" },
    );
  }
  return new StowageError("DB_FAILED", { reason: `${reason}; SQLSTATE ${state}` }, { cause: error });
}

/** Whether a server answered that it will take connections soon (or has just stopped taking them). */
export function isComingOrGoing(error: unknown): boolean {
  return sqlStateOf(error) === CANNOT_CONNECT_NOW;
}

/** Whether the transaction failed only because of others that ran beside it, and may be repeated whole. */
export function isRepeatable(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === "40001" || state === "40P01";
}

/** Whether nothing answered at all. */
export function isConnectionLoss(error: unknown): boolean {
  return isCode(error, "DB_UNREACHABLE");
}

function reasonOf(error: unknown): string {
  // A host with several addresses fails with an AggregateError, whose own message is empty.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(messageOf).join("; ");
  return messageOf(error);
}
