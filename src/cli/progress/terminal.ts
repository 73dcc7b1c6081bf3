import { createLogUpdate } from "log-update";
import type { Colors } from "picocolors/types.js";
import { formatBytes, formatDuration } from "../format.ts";
import type { OutputStream } from "../output.ts";
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

const FRAME_MS = 100;
const BAR_WIDTH = 20;
/** Of a source's name before the name of its layer. */
const SOURCE_COLUMNS = 24;

/**
 * Progress on a terminal: a line for each running task and one for all of them, drawn over again ten times a second; ended tasks stay above, of several
 * sources the ended sources.
 * `stream` is the terminal, with secrets masked by whoever made it.
 */
export function createTerminalProgress(stream: OutputStream, colors: Colors, ticker: Ticker): ProgressDisplay {
  const sized = sizedAtAll(stream);
  const draw = createLogUpdate(sized);
  let isDrawn = false;
  const above = (text: string) => {
    draw.persist(text);
    isDrawn = false;
    frame();
  };
  const tasks = new TaskList(ticker, {
    ended(task, outcome) {
      if (task.source === undefined)
        above(`${colors.green("✓")} ${printable(task.label)}  ${colors.dim(printable(outcome))}`);
    },
    sourceEnded(outcome) {
      const mark = { analyzed: colors.green("✓"), failed: colors.red("✗"), notDone: colors.yellow("–") }[
        outcome.outcome
      ];
      above(`${mark} ${printable(outcome.source)}  ${colors.dim(printable(describeOutcome(outcome)))}`);
    },
    told: (text) => above(`${colors.yellow("!")} ${printable(text)}`),
  });
  const frame = () => {
    const areSourcesLeft = tasks.sources !== undefined && tasks.sources.ended < tasks.sources.total;
    if (tasks.running.size === 0 && !areSourcesLeft) {
      if (isDrawn) draw.clear();
      isDrawn = false;
      return;
    }
    // One column and one row are left free: a terminal that wraps or scrolls at the last one would spoil the next frame.
    draw(frameLines(tasks, sized.columns - 1, sized.rows - 1, colors).join("\n"));
    isDrawn = true;
  };
  const stop = ticker.every(FRAME_MS, () => {
    tasks.sample();
    frame();
  });
  return {
    ...facesOf(tasks),
    print(text) {
      if (isDrawn) draw.clear();
      isDrawn = false;
      stream.write(text);
      frame();
    },
    [Symbol.dispose]() {
      stop();
      if (isDrawn) draw.clear();
      draw.done();
    },
  };
}

/** A terminal that says it has no columns or rows has not been told how many it has. */
function sizedAtAll(stream: OutputStream) {
  return {
    isTTY: stream.isTTY ?? false,
    get columns() {
      return stream.columns || 80;
    },
    get rows() {
      return stream.rows || 24;
    },
    write: (text: string) => stream.write(text),
  } as unknown as NodeJS.WriteStream;
}

function frameLines(tasks: TaskList, columns: number, rows: number, colors: Colors): readonly string[] {
  const { sources } = tasks;
  // What there is one of is all there is.
  const isOnly = sources === undefined && tasks.tasksBegun === 1;
  const active = [...tasks.running].filter((task) => task.done > 0 || isOnly);
  const taskRows = Math.max(0, rows - 1);
  const shown = active.length > taskRows ? active.slice(0, Math.max(0, taskRows - 1)) : active;
  const totalLabel = isOnly
    ? ""
    : sources
      ? describeSources(sources)
      : `total, ${tasks.tasksEnded} of ${tasks.tasksBegun} done`;
  const labelWidth = Math.max(totalLabel.length, ...shown.map((task) => labelOf(task).length));
  const lines = shown.map((task) => {
    const share = task.total ? task.done / task.total : undefined;
    const left = timeLeft(task.done, task.total, task.rate);
    return progressLine(labelOf(task), labelWidth, { ...task, share, left }, columns, colors);
  });
  if (shown.length < active.length && taskRows > 0) {
    lines.push(shorten(`… and ${active.length - shown.length} more`, columns));
  }
  if (isOnly) return lines.slice(-Math.max(1, rows));
  // How much there is to read of several sources is known when the last of them has begun; how many there are, from the start.
  const isSizeKnown = sources === undefined || sources.begun >= sources.total;
  const total = {
    done: tasks.bytesDone,
    total: isSizeKnown ? tasks.bytesTotal : undefined,
    share: sources ? sources.ended / sources.total : tasks.bytesTotal && tasks.bytesDone / tasks.bytesTotal,
    rate: tasks.rate,
    left: tasks.timeLeft,
  };
  lines.push(progressLine(totalLabel, labelWidth, total, columns, colors));
  return lines.slice(-Math.max(1, rows));
}

/** The end of a source's name tells more than its start. */
function labelOf({ label, source }: RunningTask): string {
  if (source === undefined) return printable(label);
  const characters = [...printable(source)];
  const end = characters.length <= SOURCE_COLUMNS ? characters : ["…", ...characters.slice(1 - SOURCE_COLUMNS)];
  return `${end.join("")}: ${printable(label)}`;
}

interface Advance extends Pick<RunningTask, "done" | "total" | "rate"> {
  /** From 0 to 1, when known. */
  readonly share: number | undefined;
  /** Milliseconds, when known. */
  readonly left: number | undefined;
}

/** A label, and as much of the rest as fits: percentage first, then bytes, time left, rate, and the bar. */
function progressLine(label: string, labelWidth: number, task: Advance, columns: number, colors: Colors): string {
  const share = task.share === undefined ? undefined : Math.min(1, task.share);
  const isAllDone = task.total !== undefined && task.done >= task.total;
  const rate = isAllDone ? undefined : task.rate.bytesPerSecond;
  const left = isAllDone ? undefined : task.left;
  const bytes = formatBytes(task.done).padStart(7);
  // In the order of the line; `rank` says what goes last when room is short.
  const parts: readonly { readonly rank: number; readonly text: string; readonly paint?: (text: string) => string }[] =
    [
      { rank: 4, text: share === undefined ? "" : bar(share), paint: colors.cyan },
      { rank: 0, text: share === undefined ? "" : `${Math.floor(share * 100)}%`.padStart(4) },
      { rank: 1, text: task.total === undefined ? bytes : `${bytes} of ${formatBytes(task.total).padStart(7)}` },
      { rank: 3, text: rate === undefined ? "" : `${formatBytes(rate)}/s`.padStart(9), paint: colors.dim },
      { rank: 2, text: left === undefined ? "" : `${formatDuration(left)} left`, paint: colors.dim },
    ].filter(({ text }) => text !== "");
  let room = columns - Math.max(labelWidth, [...label].length);
  const kept = new Set<object>();
  for (const part of [...parts].sort((one, other) => one.rank - other.rank)) {
    if (part.text.length + 2 > room) break;
    room -= part.text.length + 2;
    kept.add(part);
  }
  const rest = parts.filter((part) => kept.has(part)).map(({ text, paint }) => (paint ? paint(text) : text));
  return [shorten(label, columns).padEnd(rest.length > 0 ? labelWidth : 0), ...rest].join("  ");
}

function bar(share: number): string {
  const full = Math.round(share * BAR_WIDTH);
  return "█".repeat(full) + "░".repeat(BAR_WIDTH - full);
}

function shorten(text: string, columns: number): string {
  const characters = [...text];
  return characters.length <= columns ? text : `${characters.slice(0, Math.max(0, columns - 1)).join("")}…`;
}
