import { messageOf, StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";

export const driverName = "swift";

/** Without a byte from the other side for so long, it counts as stalled. */
export const silentMs = 60_000;

/** What was being done when it failed. */
export interface Attempt {
  readonly operation: "open" | "capabilities" | "put" | "get" | "delete" | "purge" | "list";
  readonly key?: PhysicalKey;
  /** What was asked for, without secrets: `container/prefix…` or the URL of the login. */
  readonly resource: string;
  readonly container: string;
}

/** An answer's status and headers. */
export interface Status {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

const permissions: Readonly<Record<string, string>> = {
  GET: "read",
  HEAD: "read",
  PUT: "write",
  DELETE: "write",
  POST: "log in",
};

/** What an answer means that is not one of those that were hoped for. Bodies of errors are the server's own text and stay out of it. */
export function statusFailure(answer: Status, method: string, attempt: Attempt): StowageError {
  const { statusCode } = answer;
  const about = aboutOf(attempt);
  const reason = `${method} was answered ${statusCode}${transactionOf(answer)}`;
  switch (statusCode) {
    case 401:
    case 403: {
      const permission = permissions[method] ?? "write";
      return new StowageError(
        "BACKEND_DENIED",
        { driver: driverName, operation: attempt.operation, permission, resource: attempt.resource, reason },
        { hint: `give the configured user the right to ${permission}: ${attempt.resource}` },
      );
    }
    case 404:
      return containerMissing(attempt, reason);
    case 413:
    case 507:
      return new StowageError(
        "BACKEND_FULL",
        { ...about, reason },
        { hint: "raise the quota of the account and container, or delete what is not needed" },
      );
    case 429:
    case 498:
    case 503: {
      const seconds = answer.headers["retry-after"];
      const isNumber = typeof seconds === "string" && /^\d{1,6}$/.test(seconds);
      return new StowageError("BACKEND_THROTTLED", {
        ...about,
        reason,
        ...(isNumber ? { retryAfterMs: Number(seconds) * 1000 } : {}),
      });
    }
    default:
      return new StowageError("BACKEND_FAILED", { ...about, reason });
  }
}

export function containerMissing(attempt: Attempt, reason?: string): StowageError {
  const { container } = attempt;
  return new StowageError(
    "BACKEND_CONTAINER_MISSING",
    { driver: driverName, container, ...(reason === undefined ? {} : { reason }) },
    { hint: "make the container, or set create_container: true" },
  );
}

export function failed(attempt: Attempt, reason: string, cause?: unknown): StowageError {
  return new StowageError("BACKEND_FAILED", { ...aboutOf(attempt), reason }, cause === undefined ? {} : { cause });
}

/** What a failed exchange or a body that broke off means. */
export function exchangeFailure(error: unknown, attempt: Attempt, call: Call): unknown {
  if (call.signal.aborted) {
    try {
      throwIfAborted(call);
    } catch (reason) {
      return reason;
    }
  }
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    if (at instanceof StowageError) return at;
  }
  const code = codeOf(error);
  if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT") {
    return new StowageError("BACKEND_STALLED", { ...aboutOf(attempt), silentMs }, { cause: error });
  }
  if (code === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH")
    return failed(attempt, "fewer bytes came than were announced", error);
  if (code?.startsWith("HPE_") || code === "UND_ERR_HEADERS_OVERFLOW")
    return failed(attempt, "the answer is not HTTP", error);
  if (code === undefined) return error;
  const reason = messageOf(error).includes(code) ? messageOf(error) : `${messageOf(error)}, ${code}`;
  const isCertificate = /CERT|SELF_SIGNED|UNABLE_TO_(?:GET|VERIFY)|ALTNAME/.test(code);
  return new StowageError(
    "BACKEND_UNREACHABLE",
    { driver: driverName, operation: attempt.operation, reason },
    { cause: error, ...(isCertificate ? { hint: "name the certificate authority's file in os_cacert" } : {}) },
  );
}

function aboutOf({ operation, key }: Attempt) {
  return { driver: driverName, operation, ...(key === undefined ? {} : { key }) };
}

/** Swift's operators find a request in their logs by this. */
function transactionOf({ headers }: Status): string {
  const id = headers["x-trans-id"];
  return typeof id === "string" && /^[\w-]{1,80}$/.test(id) ? ` (transaction ${id})` : "";
}

/** Whether the request can't have reached the server: no connection came about. */
export function wasNeverSent(error: unknown): boolean {
  return ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"].includes(codeOf(error) ?? "");
}

function codeOf(error: unknown): string | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as NodeJS.ErrnoException;
    if (typeof code === "string" && !(at instanceof StowageError)) return code;
  }
  return undefined;
}
