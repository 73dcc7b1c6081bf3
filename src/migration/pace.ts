import { type Call, type Clock, RateLimit } from "../runtime/index.ts";
import { Strain } from "./strain.ts";

/**
 * Where nobody says how many: what is waited for is the way to a backend. With both errands a backend is not asked to do more at once than it may (see
 * the guard's limit).
 */
const autoMost = 32;
/** Of those, what is in memory as a whole: 16 objects that are just not too long for that. */
const autoBytesMax = 16 * 1024 * 1024;
/** What is longer passes in pieces. */
const eachBytesMax = 1024 * 1024;

/** Where others are served meanwhile: more at once only as long as that makes each take no longer than so many times what it took before. */
const strainMax = 1.3;

interface PaceOptions {
  readonly clock: Clock;
  readonly concurrency: number | "auto";
  readonly bytesPerSecondMax: number | undefined;
  /** Others use the store meanwhile, and are not to wait much longer for it: it begins with one at once. */
  readonly isConsiderate: boolean;
  /** For measuring, in milliseconds. */
  readonly stopwatch?: () => number;
}

/**
 * Each has a queue of its own: in one, copies that are made would wait to be read back until all that are not begun yet are sent, and nothing would be
 * sent while they are read. The way there and the way back would be used in turns instead of together.
 */
export type Errand = "copying" | "verifying";

/** How many objects are copied at once, and as many verified: fewer when a backend asks to slow down, more again by itself. */
export class Pace {
  readonly #clock: Clock;
  readonly #rate: RateLimit;
  readonly #bytesPerSecondMax: number;
  readonly #most: number;
  readonly #bytesMax: number;
  readonly #isAdaptive: boolean;
  readonly #strains: Readonly<Record<Errand, Strain>> | undefined;
  readonly #stopwatch: () => number;
  readonly #queues: Readonly<Record<Errand, Queue>> = { copying: new Queue(), verifying: new Queue() };
  #limit: number;
  #slowedAtMs = Number.NEGATIVE_INFINITY;
  #calmCopies = 0;

  constructor({ clock, concurrency, bytesPerSecondMax, isConsiderate, stopwatch }: PaceOptions) {
    this.#clock = clock;
    this.#rate = new RateLimit(clock, bytesPerSecondMax);
    this.#bytesPerSecondMax = bytesPerSecondMax ?? Number.POSITIVE_INFINITY;
    this.#isAdaptive = concurrency === "auto";
    this.#most = concurrency === "auto" ? autoMost : concurrency;
    this.#bytesMax = concurrency === "auto" ? autoBytesMax : Number.POSITIVE_INFINITY;
    const isStrainWatched = this.#isAdaptive && isConsiderate;
    this.#strains = isStrainWatched ? { copying: new Strain(), verifying: new Strain() } : undefined;
    this.#stopwatch = stopwatch ?? (() => performance.now());
    this.#limit = isStrainWatched ? 1 : this.#most;
  }

  /** Runs `work` on an object of so many bytes when there is room for it, in the order of those who ask. */
  async run<T>(errand: Errand, storedBytes: number, work: () => Promise<T>): Promise<T> {
    const queue = this.#queues[errand];
    const bytes = Math.min(storedBytes, eachBytesMax);
    await new Promise<void>((enter) => {
      queue.waiting.push({ bytes, enter });
      this.#admit(queue);
    });
    try {
      return await work();
    } finally {
      queue.active--;
      queue.activeBytes -= bytes;
      this.#admit(queue);
    }
  }

  /** Does the work on one object, and learns from how long it takes whether more or fewer should be at work at once. */
  async watch<T>(errand: Errand, work: () => Promise<T>): Promise<T> {
    const begun = this.#stopwatch();
    const result = await work();
    const strain = this.#strains?.[errand].note(this.#stopwatch() - begun, this.#limit);
    if (strain === undefined) return result;
    if (strain > strainMax) this.#halve();
    else this.#raise(this.#limit + Math.max(1, this.#limit >> 2));
    return result;
  }

  /** Waits until so many bytes more may be sent. */
  pay(bytes: number, call: Call): Promise<void> {
    return this.#rate.pay(bytes, call);
  }

  /** How much may be sent in so long. */
  bytesIn(ms: number): number {
    return (this.#bytesPerSecondMax * ms) / 1000;
  }

  /** Tells when so long has passed. */
  timer(ms: number): () => boolean {
    const endsAt = this.#clock.now().getTime() + ms;
    return () => this.#clock.now().getTime() >= endsAt;
  }

  /** A backend asked to slow down: half as much, at most once a second, since what is under way was begun before. */
  slowDown(): void {
    if (!this.#isAdaptive) return;
    const now = this.#clock.now().getTime();
    this.#calmCopies = 0;
    if (now - this.#slowedAtMs < 1000) return;
    this.#slowedAtMs = now;
    this.#halve();
  }

  /** One went through: one more at once after as many as there are at once. */
  speedUp(): void {
    if (!this.#isAdaptive || this.#strains !== undefined || ++this.#calmCopies < this.#limit) return;
    this.#calmCopies = 0;
    this.#raise(this.#limit + 1);
  }

  #halve(): void {
    this.#limit = Math.max(1, this.#limit >> 1);
  }

  #raise(limit: number): void {
    this.#limit = Math.min(this.#most, limit);
    for (const queue of Object.values(this.#queues)) this.#admit(queue);
  }

  #admit(queue: Queue): void {
    const hasRoom = (bytes: number) => queue.active < this.#limit && queue.activeBytes + bytes <= this.#bytesMax;
    for (let first = queue.waiting[0]; first !== undefined && hasRoom(first.bytes); first = queue.waiting[0]) {
      queue.waiting.shift();
      queue.active++;
      queue.activeBytes += first.bytes;
      first.enter();
    }
  }
}

class Queue {
  readonly waiting: { readonly bytes: number; readonly enter: () => void }[] = [];
  active = 0;
  activeBytes = 0;
}
