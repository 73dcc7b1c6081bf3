import { type CodeEntry, codes, type DetailsOf, type DetailValue, type ErrorCode } from "./codes.ts";

export interface ErrorOptionsWithHint {
  readonly cause?: unknown;
  /** What the person may do about it, as an imperative sentence. */
  readonly hint?: string;
}

/** A {@link StowageError} as plain data, for thread borders and JSON output. */
export interface SerializedError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, DetailValue>>;
  readonly hint?: string;
  readonly cause?: string;
}

/** The one error class: a stable code, typed details, and the cause. */
export class StowageError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "StowageError";
  readonly code: C;
  readonly details: Readonly<Record<string, DetailValue>>;
  readonly hint: string | undefined;

  constructor(code: C, details: DetailsOf<C>, options: ErrorOptionsWithHint = {}) {
    super(
      describe(code, details as Record<string, DetailValue>),
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.code = code;
    this.details = { ...(details as Record<string, DetailValue>) };
    this.hint = options.hint;
  }

  get entry(): CodeEntry<object> {
    return codes[this.code];
  }

  /** As plain data; the cause is reduced to its message. */
  serialize(): SerializedError {
    return {
      code: this.code,
      message: this.message,
      details: this.details,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(this.cause === undefined ? {} : { cause: messageOf(this.cause) }),
    };
  }

  /** The inverse of {@link serialize}. */
  static deserialize(data: SerializedError): StowageError {
    return new StowageError(data.code, data.details as DetailsOf<ErrorCode>, {
      ...(data.hint === undefined ? {} : { hint: data.hint }),
      ...(data.cause === undefined ? {} : { cause: new Error(data.cause) }),
    });
  }
}

/** `error` as a {@link StowageError}: itself, or an `INTERNAL_FAILURE` that keeps it as its cause. */
export function toStowageError(error: unknown): StowageError {
  if (error instanceof StowageError) return error;
  if (error instanceof Error && error.name === "AbortError")
    return new StowageError("INPUT_INTERRUPTED", {}, { cause: error });
  return new StowageError("INTERNAL_FAILURE", { reason: messageOf(error) }, { cause: error });
}

export function isCode<C extends ErrorCode>(error: unknown, ...wanted: readonly C[]): error is StowageError<C> {
  return error instanceof StowageError && (wanted as readonly ErrorCode[]).includes(error.code);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function describe(code: ErrorCode, details: Readonly<Record<string, DetailValue>>): string {
  const parts = Object.entries(details)
    // Further mistakes are lines of their own where they are shown.
    .filter(([key, value]) => value !== undefined && key !== "also" && !(Array.isArray(value) && value.length === 0))
    .map(([key, value]) => `${key}: ${Array.isArray(value) ? value.join(", ") : String(value)}`);
  return parts.length === 0 ? codes[code].title : `${codes[code].title} (${parts.join("; ")})`;
}
