import { printableJson } from "../printable.ts";
import { type ProgressDisplay, type RunningTask, TaskList, type Ticker } from "./tasks.ts";

const PACE_MS = 1000;

/** Progress for programs: one JSON document on each line, so that all of standard error is JSON lines under `-o json`. */
export function createJsonProgress(write: (text: string) => void, ticker: Ticker): ProgressDisplay {
  const send = (progress: object) => write(`${printableJson(JSON.stringify({ progress }))}\n`);
  const started = new Set<RunningTask>();
  const state = ({ label, done, total }: RunningTask) => ({ label, bytesDone: done, bytesTotal: total });
  const tasks = new TaskList(ticker, {
    started(task) {
      started.add(task);
      send({ event: "started", ...state(task) });
    },
    ended(task, outcome) {
      started.delete(task);
      send({ event: "ended", ...state(task), outcome });
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
    begin: (label, total, done) => tasks.begin(label, total, done),
    tell: (text) => tasks.tell(text),
    print: write,
    [Symbol.dispose]: stop,
  };
}
