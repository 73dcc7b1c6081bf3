import { formatBytes, formatDuration } from "../format.ts";
import { printable } from "../printable.ts";
import { type ProgressDisplay, type RunningTask, TaskList, type Ticker, timeLeft } from "./tasks.ts";

/** How often a task that runs on says how far it is. */
const PACE_MS = 5000;
const SAMPLE_MS = 500;

/** Progress for a log or a pipe: one line when a task starts and when it ends, and one every few seconds in between. */
export function createLineProgress(write: (text: string) => void, ticker: Ticker): ProgressDisplay {
  const lastLineAt = new Map<RunningTask, number>();
  const line = (label: string, text: string) => write(`${printable(label)}: ${text}\n`);
  const tasks = new TaskList(ticker, {
    started(task) {
      lastLineAt.set(task, ticker.now());
      line(task.label, task.total === undefined ? "started" : `started, ${formatBytes(task.total)}`);
    },
    ended(task, outcome) {
      lastLineAt.delete(task);
      const duration = task.startedAt === undefined ? "" : ` (${formatDuration(ticker.now() - task.startedAt)})`;
      line(task.label, `${printable(outcome)}${duration}`);
    },
    told: (text) => write(`${printable(text)}\n`),
  });
  const stop = ticker.every(SAMPLE_MS, () => {
    tasks.sample();
    const now = ticker.now();
    for (const [task, at] of lastLineAt) {
      if (now - at < PACE_MS) continue;
      lastLineAt.set(task, now);
      line(task.label, describe(task));
    }
  });
  return {
    begin: (label, total, done) => tasks.begin(label, total, done),
    tell: (text) => tasks.tell(text),
    print: write,
    [Symbol.dispose]: stop,
  };
}

function describe(task: RunningTask): string {
  const parts = [formatBytes(task.done)];
  if (task.total) {
    parts[0] += ` of ${formatBytes(task.total)} (${Math.floor((100 * task.done) / task.total)} %)`;
  }
  const rate = task.rate.bytesPerSecond;
  if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
  const left = timeLeft(task.done, task.total, task.rate);
  if (left !== undefined) parts.push(`${formatDuration(left)} left`);
  return parts.join(", ");
}
