import { type Logger, pino } from "pino";
import { maskSecrets } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";

export type { Logger } from "pino";

/** The last parameter of everything that does I/O: how to stop it, and where it logs. */
export interface Call {
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** A logger of JSON lines, secrets masked; to standard error unless `write` takes them elsewhere (above a progress display, for example). */
export function createLogger(
  level: string,
  write: (line: string) => void = (line) => {
    process.stderr.write(line);
  },
): Logger {
  return pino({ level, base: {} }, { write: (line: string) => write(maskSecrets(line)) });
}

/** A call that logs nothing and is never aborted; `signal` and `log` may be given. */
export function createCall(parts: Partial<Call> = {}): Call {
  return { signal: parts.signal ?? new AbortController().signal, log: parts.log ?? pino({ level: "silent" }) };
}

/** @throws StowageError `INPUT_INTERRUPTED` when the call was aborted, or the abort's own reason if that is a StowageError */
export function throwIfAborted(call: Call): void {
  if (!call.signal.aborted) return;
  const reason: unknown = call.signal.reason;
  throw reason instanceof StowageError ? reason : new StowageError("INPUT_INTERRUPTED", {}, { cause: reason });
}

/** Aborts `controller` when `signal` is, until it is disposed of. `AbortSignal.any` costs several times as much. */
export function follow(signal: AbortSignal, controller: AbortController): Disposable {
  const abort = () => controller.abort(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", abort) };
}

/** Waits for work that several wait for: an abort ends the waiting, not the work. */
export async function unlessAborted<T>(work: Promise<T>, call: Call): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const stop = () => {
    try {
      throwIfAborted(call);
    } catch (error) {
      aborted.reject(error);
    }
  };
  call.signal.addEventListener("abort", stop, { once: true });
  if (call.signal.aborted) stop();
  try {
    return await Promise.race([aborted.promise, work]);
  } finally {
    call.signal.removeEventListener("abort", stop);
  }
}
