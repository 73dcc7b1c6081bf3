/** Progress as one model: tasks with units of a total. Displays (terminal, lines, JSON lines, none) are the CLI's. */
export interface Progress {
  /** Begins a task; `total` in bytes when known, `done` of them before it began. */
  begin(label: string, total: number | undefined, done?: number): ProgressTask;
  /** Something a person waiting should know now, for example "registry answered 503, trying again in 2 s". */
  tell(text: string): void;
}

export interface ProgressTask {
  /** `done` bytes more than before. */
  advance(done: number): void;
  /** What it does is another thing now, or can be said better. */
  relabel(label: string): void;
  /** Ends the task; `outcome` in a few words ("analysed, 527 files", "reused"). */
  end(outcome: string): void;
}

const silentTask: ProgressTask = { advance() {}, relabel() {}, end() {} };
export const silentProgress: Progress = { begin: () => silentTask, tell() {} };
