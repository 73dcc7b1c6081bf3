import { isCode, type StowageError, toStowageError } from "../errors/index.ts";
import type { Call, Clock } from "../runtime/index.ts";

/** What is wrong with a place, and not with one of its objects. */
const codesOfPlaces = ["BACKEND_UNREACHABLE", "BACKEND_DENIED", "BACKEND_FULL", "BACKEND_CONTAINER_MISSING"] as const;
/** So many objects one after the other, and none that went through between them. */
const failuresMax = 10;
const probeEveryMs = 5000;
/** Five minutes at the least: long enough to renew a credential or to make room, and no process waits longer for the store than that. */
const probesMax = 60;

interface Pause {
  readonly reason: StowageError;
  probes: number;
  isProbing: boolean;
  /** The present probe has come to its end. */
  changed: PromiseWithResolvers<void>;
}

/**
 * Pauses all work when a place itself fails, tries one object again every few seconds, and lets all go on once that goes through; gives up after a while.
 * What was not tried has not failed.
 */
export class Outage {
  readonly #clock: Clock;
  readonly #call: Call;
  readonly #told: (isPaused: boolean) => void;
  #attempts = 0;
  #failures = 0;
  /** The last attempt that was begun when the first of these failures was seen: one of before says nothing of now. */
  #wellUntil = 0;
  #pause: Pause | undefined;
  /** Why nothing more is begun. */
  reason: StowageError | undefined;

  /** @param call waits end with it, and nothing more is begun */
  constructor(clock: Clock, call: Call, told: (isPaused: boolean) => void) {
    this.#clock = clock;
    this.#call = call;
    this.#told = told;
  }

  /** Does the work of one object, which says whether it tried; again where the place was to blame. True when it went through. */
  async attempt(work: () => Promise<boolean>): Promise<boolean> {
    for (;;) {
      const turn = await this.#turn();
      if (turn === undefined) return false;
      const number = ++this.#attempts;
      try {
        const isDone = await work();
        if (isDone && number > this.#wellUntil) this.#recovered();
        return isDone;
      } catch (error) {
        if (!codesOfPlaces.some((code) => isCode(error, code)) || !this.#isPausedBy(error, turn.isProbe)) throw error;
      } finally {
        if (turn.isProbe) this.#probed();
      }
    }
  }

  /** Waits while all is paused, or until this is the next probe. */
  async #turn(): Promise<{ readonly isProbe: boolean } | undefined> {
    for (;;) {
      if (this.#call.signal.aborted || this.reason !== undefined) return undefined;
      if (this.#pause === undefined) return { isProbe: false };
      if (this.#pause.isProbing) {
        await this.#pause.changed.promise;
        continue;
      }
      this.#pause.isProbing = true;
      await this.#clock.sleep(probeEveryMs, this.#call).catch(() => {});
      if (!this.#call.signal.aborted) return { isProbe: true };
      this.#probed();
    }
  }

  #recovered(): void {
    this.#failures = 0;
    if (this.#pause === undefined) return;
    const { changed } = this.#pause;
    this.#pause = undefined;
    this.#call.log.warn("the migration goes on");
    this.#told(false);
    changed.resolve();
  }

  /** Whether all is paused by now. */
  #isPausedBy(error: unknown, isProbe: boolean): boolean {
    if (this.#pause === undefined) {
      if (this.#failures === 0) this.#wellUntil = this.#attempts;
      if (++this.#failures < failuresMax) return false;
      const reason = toStowageError(error);
      this.#pause = { reason, probes: 0, isProbing: false, changed: Promise.withResolvers() };
      this.#call.log.warn(
        { err: reason, ...(reason.hint === undefined ? {} : { hint: reason.hint }) },
        `the migration is paused; one object is tried again every ${probeEveryMs / 1000} s, for ${(probesMax * probeEveryMs) / 60_000} min or a little more`,
      );
      this.#told(true);
    } else if (isProbe && ++this.#pause.probes >= probesMax) this.reason = this.#pause.reason;
    return true;
  }

  #probed(): void {
    if (this.#pause === undefined) return;
    const { changed } = this.#pause;
    this.#pause.isProbing = false;
    this.#pause.changed = Promise.withResolvers();
    changed.resolve();
  }
}
