import type { AnalysisOutcome, SeveralProgress } from "../../app/index.ts";
import type { Progress, ProgressTask } from "../../runtime/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";

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
export interface ProgressDisplay extends SeveralProgress, Disposable {
  /** Writes other text (whole lines, such as a log's) to the same stream without damaging the display. */
  print(text: string): void;
}

/** A task that has begun and not ended. One that has not advanced yet is waiting: it counts towards totals only. */
export interface RunningTask {
  readonly label: string;
  /** The source that it belongs to, where there are several. */
  readonly source: string | undefined;
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
  /** One of several sources has come to its end. */
  sourceEnded(outcome: AnalysisOutcome): void;
  told(text: string): void;
}

/** How far several sources are. */
export interface SourceCounts {
  readonly total: number;
  readonly begun: number;
  readonly ended: number;
  readonly failed: number;
  readonly startedAt: number;
}

/** The model behind every display: which tasks run, how far and how fast. */
export class TaskList implements SeveralProgress {
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
  /** `undefined` as soon as a task begins whose size is not known. Of several sources, what is known of those that have begun. */
  bytesTotal: number | undefined = 0;
  /** Where several sources were planned. */
  sources: SourceCounts | undefined;

  constructor(ticker: Ticker, listener: TaskListener) {
    this.#ticker = ticker;
    this.#listener = listener;
    this.rate.sample(ticker.now(), 0);
  }

  begin(label: string, total: number | undefined, before = 0): ProgressTask {
    return this.#begin(label, total, before, undefined);
  }

  plan(total: number): void {
    this.sources = { total, begun: 0, ended: 0, failed: 0, startedAt: this.#ticker.now() };
  }

  beginSource(source: string): Progress {
    this.#count({ begun: 1 });
    return {
      begin: (label, total, before = 0) => this.#begin(label, total, before, source),
      tell: (text) => this.#listener.told(`${source}: ${text}`),
    };
  }

  endSource(outcome: AnalysisOutcome): void {
    for (const task of this.running) if (task.source === outcome.source) this.#end(task, "not done");
    this.#count({ ended: 1, failed: outcome.outcome === "failed" ? 1 : 0 });
    this.#listener.sourceEnded(outcome);
  }

  /** Milliseconds that all of it still takes; `undefined` when that can't be said. */
  get timeLeft(): number | undefined {
    const { sources } = this;
    // How large sources are that have not begun, nobody knows: they will take what the others took.
    if (sources === undefined || sources.begun >= sources.total) {
      return timeLeft(this.bytesDone, this.bytesTotal, this.rate);
    }
    if (sources.ended === 0) return undefined;
    const elapsed = this.#ticker.now() - sources.startedAt;
    return Math.ceil((elapsed * (sources.total - sources.ended)) / sources.ended / 1000) * 1000;
  }

  #count({ begun = 0, ended = 0, failed = 0 }: Partial<SourceCounts>): void {
    const { sources } = this;
    if (sources === undefined) return;
    this.sources = {
      ...sources,
      begun: sources.begun + begun,
      ended: sources.ended + ended,
      failed: sources.failed + failed,
    };
  }

  #begin(label: string, total: number | undefined, before: number, source: string | undefined): ProgressTask {
    const startedAt = undefined as number | undefined;
    const task = { label, source, total, done: before, startedAt, rate: new RateMeter() };
    this.running.add(task);
    this.tasksBegun++;
    this.bytesDone += before;
    this.#bytesBefore += before;
    // Merging one of several has no bytes, and others are still to be read.
    const size = source === undefined ? total : (total ?? 0);
    this.bytesTotal = this.bytesTotal === undefined || size === undefined ? undefined : this.bytesTotal + size;
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
      end: (outcome) => this.#end(task, outcome),
    };
  }

  #end(task: RunningTask, outcome: string): void {
    if (!this.running.delete(task)) return;
    this.tasksEnded++;
    // What a task did not have to read (a layer that was known) is no work left.
    if (this.bytesTotal !== undefined) this.bytesTotal += task.done - (task.total ?? 0);
    this.#listener.ended(task, outcome);
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

/** `12 of 100 images, 1 failed` */
export function describeSources({ ended, total, failed }: SourceCounts): string {
  return `${formatCount(ended)} of ${plural(total, "image")}${failed === 0 ? "" : `, ${formatCount(failed)} failed`}`;
}

/** What a display passes on to its list of tasks. */
export function facesOf(tasks: TaskList): SeveralProgress {
  return {
    begin: (label, total, done) => tasks.begin(label, total, done),
    tell: (text) => tasks.tell(text),
    plan: (sources) => tasks.plan(sources),
    beginSource: (source) => tasks.beginSource(source),
    endSource: (outcome) => tasks.endSource(outcome),
  };
}
