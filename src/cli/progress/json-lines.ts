import { printableJson } from "../printable.ts";
import { facesOf, type ProgressDisplay, type RunningTask, TaskList, type Ticker } from "./tasks.ts";

const PACE_MS = 1000;

/** Progress for programs: one JSON document on each line, so that all of standard error is JSON lines under `-o json`. */
export function createJsonProgress(write: (text: string) => void, ticker: Ticker): ProgressDisplay {
  const send = (progress: object) => write(`${printableJson(JSON.stringify({ progress }))}\n`);
  const started = new Set<RunningTask>();
  const state = ({ label, source, done, total }: RunningTask) => ({
    label,
    source,
    bytesDone: done,
    bytesTotal: total,
  });
  const tasks = new TaskList(ticker, {
    started(task) {
      started.add(task);
      send({ event: "started", ...state(task) });
    },
    ended(task, outcome) {
      started.delete(task);
      send({ event: "ended", ...state(task), outcome });
    },
    sourceEnded({ source, outcome }) {
      const { ended = 0, failed = 0, total = 0 } = tasks.sources ?? {};
      send({ event: "sourceEnded", source, outcome, sourcesEnded: ended, sourcesFailed: failed, sourcesTotal: total });
    },
    told: (text) => send({ event: "told", text }),
  });
  const stop = ticker.every(PACE_MS, () => {
    tasks.sample();
    for (const task of started) {
      send({ event: "advanced", ...state(task), bytesPerSecond: Math.round(task.rate.bytesPerSecond ?? 0) });
    }
  });
  return {
    ...facesOf(tasks),
    print: write,
    [Symbol.dispose]: stop,
  };
}
