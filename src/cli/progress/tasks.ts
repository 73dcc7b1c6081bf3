import type { Progress, ProgressTask } from "../../runtime/index.ts";

/** Time as progress displays see it: monotonic milliseconds, and something that happens again and again. */
export interface Ticker {
  now(): number;
  /** Calls `action` every `ms` until the returned function is called. */
  every(ms: number, action: () => void): () => void;
}

export const systemTicker: Ticker = {
  now: () => performance.now(),
  every(ms, action) {
    const timer = setInterval(action, ms);
    // A display never keeps the process alive.
    timer.unref();
    return () => clearInterval(timer);
  },
};

/** A display of progress. Disposing it leaves the terminal as a next writer expects it. */
export interface ProgressDisplay extends Progress, Disposable {
  /** Writes other text (whole lines, such as a log's) to the same stream without damaging the display. */
  print(text: string): void;
}

/** A task that has begun and not ended. One that has not advanced yet is waiting: it counts towards totals only. */
export interface RunningTask {
  readonly label: string;
  /** Bytes, when known. */
  readonly total: number | undefined;
  readonly done: number;
  /** Time of its first advance. */
  readonly startedAt: number | undefined;
  readonly rate: RateMeter;
}

/** What a display is told. */
export interface TaskListener {
  /** The task's first advance. */
  started?(task: RunningTask): void;
  ended(task: RunningTask, outcome: string): void;
  told(text: string): void;
}

/** The model behind every display: which tasks run, how far and how fast. */
export class TaskList implements Progress {
  readonly #listener: TaskListener;
  readonly #ticker: Ticker;
  readonly running = new Set<RunningTask>();
  /** Over all tasks, ended ones included. */
  readonly rate = new RateMeter();
  tasksBegun = 0;
  tasksEnded = 0;
  bytesDone = 0;
  /** Done before their tasks began: no work of ours, so not of the rate's. */
  #bytesBefore = 0;
  /** `undefined` as soon as a task begins whose size is not known. */
  bytesTotal: number | undefined = 0;

  constructor(ticker: Ticker, listener: TaskListener) {
    this.#ticker = ticker;
    this.#listener = listener;
    this.rate.sample(ticker.now(), 0);
  }

  begin(label: string, total: number | undefined, before = 0): ProgressTask {
    const task = { label, total, done: before, startedAt: undefined as number | undefined, rate: new RateMeter() };
    this.running.add(task);
    this.tasksBegun++;
    this.bytesDone += before;
    this.#bytesBefore += before;
    this.bytesTotal = this.bytesTotal === undefined || total === undefined ? undefined : this.bytesTotal + total;
    return {
      // Called for every chunk of every layer: no more than additions here.
      advance: (done) => {
        task.done += done;
        this.bytesDone += done;
        if (task.startedAt !== undefined) return;
        task.startedAt = this.#ticker.now();
        task.rate.sample(task.startedAt, before);
        this.#listener.started?.(task);
      },
      relabel: (better) => {
        task.label = better;
      },
      end: (outcome) => {
        if (!this.running.delete(task)) return;
        this.tasksEnded++;
        // What a task did not have to read (a layer that was known) is no work left.
        if (this.bytesTotal !== undefined) this.bytesTotal += task.done - (total ?? 0);
        this.#listener.ended(task, outcome);
      },
    };
  }

  tell(text: string): void {
    this.#listener.told(text);
  }

  /** Takes a sample of every meter; the display calls it at a steady pace. */
  sample(): void {
    const now = this.#ticker.now();
    this.rate.sample(now, this.bytesDone - this.#bytesBefore);
    for (const task of this.running) if (task.startedAt !== undefined) task.rate.sample(now, task.done);
  }
}

/** Bytes per second over the last seconds, so that a stall shows soon and a burst doesn't. */
export class RateMeter {
  static readonly windowMs = 5000;
  #samples: { readonly at: number; readonly done: number }[] = [];

  sample(at: number, done: number): void {
    this.#samples.push({ at, done });
    // The oldest sample kept is the newest of those outside the window: the span is never shorter than the window once that time has passed.
    while ((this.#samples[1]?.at ?? at) <= at - RateMeter.windowMs) this.#samples.shift();
  }

  /** `undefined` while there is too little to say. */
  get bytesPerSecond(): number | undefined {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.at - first.at < 500) return undefined;
    return ((last.done - first.done) * 1000) / (last.at - first.at);
  }
}

/** Milliseconds left at the present rate, in whole seconds; `undefined` when that can't be said. */
export function timeLeft(done: number, total: number | undefined, rate: RateMeter): number | undefined {
  const bytesPerSecond = rate.bytesPerSecond;
  if (total === undefined || bytesPerSecond === undefined || bytesPerSecond <= 0) return undefined;
  return Math.max(0, Math.ceil((total - done) / bytesPerSecond)) * 1000;
}
