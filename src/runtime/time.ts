import { setTimeout as delay } from "node:timers/promises";
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
  async sleep(ms, call) {
    throwIfAborted(call);
    try {
      await delay(ms, undefined, { signal: call.signal });
    } catch (error) {
      throwIfAborted(call);
      throw error;
    }
  },
};
