/** Runtime: what every room's I/O carries (call, clock, log), progress, announced steps. */
export { type Call, createCall, createLogger, follow, type Logger, throwIfAborted, unlessAborted } from "./call.ts";
export { formatCount, plural } from "./counts.ts";
export { makeDirectories } from "./directories.ts";
export { eachAtOnce } from "./each-at-once.ts";
export { collectEarly, freeAtOnce } from "./free-memory.ts";
export { giveWay } from "./give-way.ts";
export { type Progress, type ProgressTask, silentProgress } from "./progress.ts";
export { RateLimit } from "./rate-limit.ts";
export { defaultRetryPolicy, type RetryPolicy, retry } from "./retry.ts";
export { announce, onStep, type Step } from "./steps.ts";
export { type Clock, systemClock } from "./time.ts";
