import { formatBytes, formatDuration } from "../format.ts";
import { printable } from "../printable.ts";
import { describeOutcome } from "./outcome.ts";
import {
  describeSources,
  facesOf,
  type ProgressDisplay,
  type RunningTask,
  TaskList,
  type Ticker,
  timeLeft,
} from "./tasks.ts";

/** How often a task that runs on says how far it is. */
const PACE_MS = 5000;
const SAMPLE_MS = 500;

/**
 * Progress for a log or a pipe: one line when a task starts and when it ends, and one every few seconds in between. Of several sources each has one line
 * when it ends, and all together one every few seconds.
 */
export function createLineProgress(write: (text: string) => void, ticker: Ticker): ProgressDisplay {
  const lastLineAt = new Map<RunningTask, number>();
  let allLineAt = ticker.now();
  const line = (label: string, text: string) => write(`${printable(label)}: ${text}\n`);
  const tasks = new TaskList(ticker, {
    started(task) {
      if (task.source !== undefined) return;
      lastLineAt.set(task, ticker.now());
      line(task.label, task.total === undefined ? "started" : `started, ${formatBytes(task.total)}`);
    },
    ended(task, outcome) {
      if (task.source !== undefined) return;
      lastLineAt.delete(task);
      const duration = task.startedAt === undefined ? "" : ` (${formatDuration(ticker.now() - task.startedAt)})`;
      line(task.label, `${printable(outcome)}${duration}`);
    },
    sourceEnded(outcome) {
      const { ended = 0, total = 0 } = tasks.sources ?? {};
      line(`[${ended}/${total}] ${outcome.source}`, printable(describeOutcome(outcome)));
    },
    told: (text) => write(`${printable(text)}\n`),
  });
  const stop = ticker.every(SAMPLE_MS, () => {
    tasks.sample();
    const now = ticker.now();
    const { sources } = tasks;
    if (sources !== undefined && now - allLineAt >= PACE_MS) {
      allLineAt = now;
      line(
        describeSources(sources),
        describe({ rate: tasks.rate, done: tasks.bytesDone, total: undefined }, tasks.timeLeft),
      );
    }
    for (const [task, at] of lastLineAt) {
      if (now - at < PACE_MS) continue;
      lastLineAt.set(task, now);
      line(task.label, describe(task, timeLeft(task.done, task.total, task.rate)));
    }
  });
  return {
    ...facesOf(tasks),
    print: write,
    [Symbol.dispose]: stop,
  };
}

function describe(task: Pick<RunningTask, "done" | "total" | "rate">, left: number | undefined): string {
  const parts = [formatBytes(task.done)];
  if (task.total) {
    parts[0] += ` of ${formatBytes(task.total)} (${Math.floor((100 * task.done) / task.total)} %)`;
  }
  // Who waits for something else has no rate.
  if (task.total !== undefined && task.done >= task.total) return parts.join(", ");
  const rate = task.rate.bytesPerSecond;
  if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
  if (left !== undefined) parts.push(`${formatDuration(left)} left`);
  return parts.join(", ");
}
