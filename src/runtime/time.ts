import type { Call } from "./call.ts";
import { throwIfAborted } from "./call.ts";

/** Time as an argument, so that tests decide it. */
export interface Clock {
  now(): Date;
  /** Resolves after `ms`; rejects when the call is aborted. */
  sleep(ms: number, call: Call): Promise<void>;
}

export const systemClock: Clock = {
  now: () => new Date(),
  // Not the promise of `node:timers/promises`: it makes an error for each wait that is aborted, and most waits for a silent backend are.
  async sleep(ms, call) {
    throwIfAborted(call);
    const { signal } = call;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const wake = () => resolve();
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    clearTimeout(timer);
    signal.removeEventListener("abort", wake);
    throwIfAborted(call);
  },
};
