import { defaultRetryPolicy, type RetryPolicy } from "../runtime/index.ts";
import type { ObjectDriver } from "./driver.ts";
import { withConcurrencyLimit } from "./guard/concurrency-limit.ts";
import { withErrorContext } from "./guard/error-context.ts";
import { createDriverMetrics, type DriverMetrics, withMetrics } from "./guard/metrics.ts";
import { inPieces, inStreams } from "./guard/pieces.ts";
import { withRetries } from "./guard/retries.ts";
import { withStallTimeout } from "./guard/stall-timeout.ts";

export interface GuardOptions {
  /** How long the backend may neither take nor give anything while it is waited for. Default 60 s. */
  readonly stallMs?: number;
  /** Operations at work at once; streams that are open count. Default 64. */
  readonly operationsMax?: number;
  /** After so long a wait for its own caller, an operation lends its place to one that queues. Default 1 s. */
  readonly lendAfterMs?: number;
  /** How often a stream that breaks midway goes on. Default 100. */
  readonly breaksMax?: number;
  /** With its clock, which all of the guard uses. */
  readonly retry?: RetryPolicy;
  /** Where to count; an own object by default. */
  readonly metrics?: DriverMetrics;
}

export interface GuardedDriver extends ObjectDriver {
  readonly metrics: DriverMetrics;
}

/**
 * The driver with what every backend needs, from inside out: errors that say what they are about, a limit on silence, a limit on what is at work at
 * once, repetition, counts. Within the limit on operations nothing sleeps before it comes again; what queues for a place does not count as silent.
 */
export function guard(driver: ObjectDriver, options: GuardOptions = {}): GuardedDriver {
  const policy = options.retry ?? defaultRetryPolicy;
  const metrics = options.metrics ?? createDriverMetrics();
  const { clock } = policy;
  const counted = inPieces(driver, (bytes) => {
    metrics.bytesWritten += bytes;
  });
  const described = withErrorContext(counted);
  const timed = withStallTimeout(described, { clock, stallMs: options.stallMs ?? 60_000 });
  const limited = withConcurrencyLimit(timed, {
    clock,
    operationsMax: options.operationsMax ?? 64,
    lendAfterMs: options.lendAfterMs ?? 1000,
  });
  const repeated = withRetries(limited, {
    policy,
    breaksMax: options.breaksMax ?? 100,
    onRetry: (operation) => {
      metrics.of[operation].retries++;
    },
  });
  return { ...inStreams(withMetrics(repeated, metrics)), metrics };
}
