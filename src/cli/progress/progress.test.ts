import { createColors } from "picocolors";
import { describe, expect, it } from "vitest";
import { FakeStream, Screen } from "../../../test/cli/streams.ts";
import { FakeTicker } from "../../../test/cli/ticker.ts";
import { documents } from "../documents.ts";
import { createJsonProgress } from "./json-lines.ts";
import { createLineProgress } from "./lines.ts";
import { RateMeter, timeLeft } from "./tasks.ts";
import { createTerminalProgress } from "./terminal.ts";

describe("RateMeter", () => {
  it("forgets what is older than its window", () => {
    const meter = new RateMeter();
    expect(meter.bytesPerSecond).toBeUndefined();
    for (let at = 0; at <= 60_000; at += 100) meter.sample(at, at < 30_000 ? at * 10 : 300_000);
    expect(meter.bytesPerSecond).toBe(0);
    expect(timeLeft(1, 2, meter)).toBeUndefined();
    for (let at = 60_100; at <= 70_000; at += 100) meter.sample(at, 300_000 + (at - 60_000) * 2);
    expect(meter.bytesPerSecond).toBe(2000);
    expect(timeLeft(1000, 6000, meter)).toBe(3000);
  });
});

function lineProgress() {
  const ticker = new FakeTicker();
  const lines: string[] = [];
  const progress = createLineProgress((text) => lines.push(text), ticker);
  return { ticker, lines, progress };
}

describe("lines", () => {
  it("says when a task starts, every few seconds how far it is, and how it ends", () => {
    const { ticker, lines, progress } = lineProgress();
    const task = progress.begin("layer 1/2", 10_000_000);
    const reused = progress.begin("layer 2/2", 5_000_000);
    expect(lines).toEqual([]);
    reused.end("reused");
    for (let index = 0; index < 12; index++) {
      task.advance(500_000);
      ticker.pass(1000);
    }
    progress.tell("registry answered 503, trying again in 2 s");
    task.end("analysed, 12 files");
    expect(lines).toEqual([
      "layer 2/2: reused\n",
      "layer 1/2: started, 10.0 MB\n",
      "layer 1/2: 2.50 MB of 10.0 MB (25 %), 500 kB/s, 15 s left\n",
      "layer 1/2: 5.00 MB of 10.0 MB (50 %), 500 kB/s, 10 s left\n",
      "registry answered 503, trying again in 2 s\n",
      "layer 1/2: analysed, 12 files (12 s)\n",
    ]);
    progress[Symbol.dispose]();
    expect(ticker.timers).toBe(0);
  });

  it("does without a total, and escapes what an image chose", () => {
    const { ticker, lines, progress } = lineProgress();
    const task = progress.begin("evil\u001b[2J", undefined);
    task.advance(10);
    ticker.pass(5000);
    task.end("done\r");
    task.end("twice");
    expect(lines).toEqual(["evil\\x1b[2J: started\n", "evil\\x1b[2J: 10 B, 2 B/s\n", "evil\\x1b[2J: done\\r (5 s)\n"]);
  });
});

it("JSON lines have the documented shape", () => {
  const ticker = new FakeTicker();
  const lines: string[] = [];
  using progress = createJsonProgress((text) => lines.push(text), ticker);
  const task = progress.begin("layer 1/1", undefined);
  task.advance(10);
  ticker.pass(1000);
  progress.tell("a\nb");
  task.end("done");
  const events = lines.map((line) => {
    expect(line).toMatch(/^[^\n]+\n$/);
    return documents.progress.parse(JSON.parse(line)).progress.event;
  });
  expect(events).toEqual(["started", "advanced", "told", "ended"]);
});

function terminalProgress(columns: number, rows: number) {
  const ticker = new FakeTicker();
  const stream = new FakeStream({ columns, rows });
  const screen = new Screen(columns);
  const progress = createTerminalProgress(stream, createColors(false), ticker);
  const see = async () => {
    await new Promise((resolve) => stream.write("", resolve));
    screen.write(stream.text);
    stream.text = "";
    return screen.lines;
  };
  return { ticker, stream, progress, see };
}

describe("terminal", () => {
  it("draws running tasks and the total, and leaves ended ones above", async () => {
    const { ticker, progress, see } = terminalProgress(110, 24);
    const tasks = [1, 2, 3].map((index) => progress.begin(`layer ${index}/3`, 10_000_000 * index));
    for (let index = 0; index < 20; index++) {
      tasks[0]?.advance(250_000);
      tasks[2]?.advance(500_000);
      ticker.pass(100);
    }
    expect(await see()).toEqual([
      "layer 1/3           ██████████░░░░░░░░░░   50%  5.00 MB of 10.0 MB  2.50 MB/s  2 s left",
      "layer 3/3           ███████░░░░░░░░░░░░░   33%  10.0 MB of 30.0 MB  5.00 MB/s  4 s left",
      "total, 0 of 3 done  █████░░░░░░░░░░░░░░░   25%  15.0 MB of 60.0 MB  7.50 MB/s  6 s left",
    ]);
    tasks[1]?.end("reused");
    tasks[2]?.end("analysed, 7 files");
    progress.print('{"msg":"log"}\n');
    ticker.pass(100);
    expect((await see()).slice(0, 4)).toEqual([
      "✓ layer 2/3  reused",
      "✓ layer 3/3  analysed, 7 files",
      '{"msg":"log"}',
      "layer 1/3           ██████████░░░░░░░░░░   50%  5.00 MB of 10.0 MB  2.38 MB/s  3 s left",
    ]);
    progress.tell("trying again");
    tasks[0]?.end("analysed");
    progress[Symbol.dispose]();
    expect((await see()).slice(2)).toEqual(['{"msg":"log"}', "! trying again", "✓ layer 1/3  analysed"]);
    expect(ticker.timers).toBe(0);
  });

  it("is gone, and the cursor is where it was, when it is disposed in the middle", async () => {
    const { ticker, stream, progress, see } = terminalProgress(80, 24);
    stream.write("before\n");
    progress.begin("layer", 10).advance(1);
    ticker.pass(100);
    expect((await see()).length).toBe(3);
    progress[Symbol.dispose]();
    stream.write("after\n");
    expect(await see()).toEqual(["before", "after"]);
  });

  it("draws ten times a second, however often tasks advance", async () => {
    const { ticker, stream, progress } = terminalProgress(80, 24);
    let writes = 0;
    const write = stream.write.bind(stream) as typeof stream.write;
    stream.write = ((...parts: Parameters<typeof write>) => {
      writes++;
      return write(...parts);
    }) as typeof stream.write;
    const task = progress.begin("layer", 1e9);
    for (let index = 0; index < 1000; index++) {
      for (let chunk = 0; chunk < 100; chunk++) task.advance(1000);
      ticker.pass(1);
    }
    expect(writes).toBeLessThanOrEqual(10);
    expect(writes).toBeGreaterThan(5);
  });

  it.each([10, 20, 32, 45, 60, 79, 100])("fits into %d columns", async (columns) => {
    const { ticker, progress, see } = terminalProgress(columns, 8);
    const tasks = Array.from({ length: 12 }, (_, index) => progress.begin(`layer ${index + 1}/12 sha256:012345`, 1e8));
    for (let index = 0; index < 10; index++) {
      for (const task of tasks) task.advance(1_000_000);
      ticker.pass(100);
      // A frame that is higher than the screen, or wraps, would leave parts of itself behind.
      expect((await see()).length).toBeLessThanOrEqual(7);
    }
    const lines = await see();
    expect(lines).toHaveLength(7);
    expect(lines[5]).toBe(columns < 13 ? "… and 7 …" : "… and 7 more");
    expect(lines[6]?.startsWith(columns < 20 ? "total, 0…" : "total, 0 of 12 done")).toBe(true);
    if (columns >= 45) expect(lines[0]).toMatch(/ 10%/);
    progress[Symbol.dispose]();
    expect(await see()).toEqual([]);
  });
});
