import { messageOf, StowageError } from "../errors/index.ts";
import { deniedFailure, INSUFFICIENT_PRIVILEGE, type SentStatement } from "./denied.ts";

/** SQLSTATE "the database system is starting up", "is shutting down", "is in recovery mode". */
const CANNOT_CONNECT_NOW = "57P03";

/** The SQLSTATE of a failed statement, wherever in the chain of causes it stands. */
export function sqlStateOf(error: unknown): string | undefined {
  for (let current = error, depth = 0; current instanceof Error && depth < 8; current = current.cause, depth += 1) {
    // Only what the server reported has a severity; codes of the operating system (`EPIPE`) may look the same.
    const { code, severity } = current as Error & { code?: unknown; severity?: unknown };
    if (typeof code === "string" && severity !== undefined) return code;
  }
  return undefined;
}

/**
 * What `pg` threw for a statement as an error of ours; the cause is kept. Messages of `pg` name user, host and database, never the password.
 * @param database the database's description
 */
export function toStatementFailure(error: unknown, database: string, statement?: SentStatement): StowageError {
  if (error instanceof StowageError) return error;
  const state = sqlStateOf(error);
  if (state === INSUFFICIENT_PRIVILEGE) return deniedFailure(error, statement);
  if (state === undefined ? isLostConnection(error) : isConnectionState(state)) return unreachable(error, database);
  const reason = state === undefined ? messageOf(error) : `${messageOf(error)}; SQLSTATE ${state}`;
  return new StowageError("DB_FAILED", { reason }, { cause: error });
}

/** The same for an attempt to connect, where whatever went wrong means that the database can't be reached. */
export function toConnectFailure(error: unknown, database: string): StowageError {
  if (error instanceof StowageError) return error;
  if (!sqlStateOf(error)?.startsWith("28")) return unreachable(error, database);
  return new StowageError(
    "ACCESS_DENIED",
    { host: database, reason: messageOf(error) },
    { cause: error, hint: "check user and password in the database URL" },
  );
}

function unreachable(error: unknown, database: string): StowageError {
  // A host with several addresses fails with an AggregateError, whose own message is empty.
  const reasons = error instanceof AggregateError ? error.errors : [error];
  return new StowageError(
    "DB_UNREACHABLE",
    { database, reason: reasons.map(messageOf).join("; ") },
    {
      cause: error,
      hint: reasons.some(isCertificateFault)
        ? "name the authority that signed the server's certificate with sslrootcert, and the server as its certificate does"
        : "check that the database is running and that its URL is right",
    },
  );
}

/** OpenSSL's names for what is wrong with a certificate, and Node's for a name that is not in it. */
function isCertificateFault(error: unknown): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return /CERT|UNABLE_TO_VERIFY|SELF_SIGNED|ALTNAME/.test(code);
}

/** 08: connection exceptions; 57P0x: the server is going or coming. */
function isConnectionState(state: string): boolean {
  return state.startsWith("08") || state.startsWith("57P0");
}

/** `pg` has no codes for what it finds itself; these are its words. */
function isLostConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { syscall } = error as NodeJS.ErrnoException;
  return (
    syscall !== undefined ||
    /^(Connection terminated|Query read timeout|Client (has encountered a connection error|was closed))/.test(
      error.message,
    )
  );
}

/**
 * Whether an attempt to connect failed on how it was protected, not on who made it: no TLS at the server, a handshake that failed, or rules of the server
 * (`pg_hba.conf`) that take connections of the other kind only.
 */
export function isRefusedBySecurity(error: unknown): boolean {
  const INVALID_AUTHORIZATION = "28000";
  if (sqlStateOf(error) !== undefined) return sqlStateOf(error) === INVALID_AUTHORIZATION;
  if (!(error instanceof Error)) return false;
  const { code = "" } = error as NodeJS.ErrnoException;
  return code === "EPROTO" || code.startsWith("ERR_SSL_") || error.message.includes("support SSL connections");
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
