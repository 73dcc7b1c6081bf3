import { StowageError } from "../errors/index.ts";
import type { Call } from "./call.ts";
import { type Clock, systemClock } from "./time.ts";

export interface RetryPolicy {
  /** The first one counts. */
  readonly attemptsMax: number;
  /** Before the second attempt; doubled before each later one. */
  readonly firstDelayMs: number;
  readonly delayMaxMs: number;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
}

export const defaultRetryPolicy: RetryPolicy = {
  attemptsMax: 5,
  firstDelayMs: 200,
  delayMaxMs: 20_000,
  clock: systemClock,
  random: Math.random,
};

/**
 * Repeats `work` while it throws an error whose code says that it may succeed later: after delays that double, each shortened by a random half
 * so that many clients don't come back at once, or after the time that the other side asked for (`retryAfterMs` in the details).
 */
export async function retry<T>(
  work: (attempt: number) => Promise<T>,
  policy: RetryPolicy,
  call: Call,
  onRetry: (error: StowageError, attempt: number, delayMs: number) => void = () => {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      const isTransient = error instanceof StowageError && error.entry.retry === "later";
      if (!isTransient || attempt >= policy.attemptsMax || call.signal.aborted) throw error;
      const asked = Number(error.details.retryAfterMs ?? 0);
      const backOff = Math.min(policy.firstDelayMs * 2 ** (attempt - 1), policy.delayMaxMs);
      const delayMs = Math.max(backOff * (0.5 + policy.random() / 2), Math.min(asked, policy.delayMaxMs));
      onRetry(error, attempt, delayMs);
      await policy.clock.sleep(delayMs, call);
    }
  }
}
