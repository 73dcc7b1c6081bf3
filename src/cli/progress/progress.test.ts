import { createColors } from "picocolors";
import { describe, expect, it } from "vitest";
import { FakeStream, Screen } from "../../../test/cli/streams.ts";
import { FakeTicker } from "../../../test/cli/ticker.ts";
import type { AnalysisOutcome } from "../../app/index.ts";
import { StowageError } from "../../errors/index.ts";
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

/** Outcomes of sources; reports as far as displays look at them. */
const analyzed = (source: string): AnalysisOutcome => ({
  source,
  outcome: "analyzed",
  report: {
    layers: [{ outcome: "reused" }, { outcome: "analyzed" }],
    files: 5,
    packages: { apk: 2 },
    durationMs: 1200,
  } as never,
});
const failed = (source: string): AnalysisOutcome => ({
  source,
  outcome: "failed",
  error: new StowageError("IMAGE_NOT_FOUND", { image: source }),
});

describe("lines of several sources", () => {
  it("are one for each that ends, and one for all every few seconds", () => {
    const { ticker, lines, progress } = lineProgress();
    progress.plan(3);
    const [one, other] = [progress.beginSource("a:1"), progress.beginSource("b\u001b:1")];
    const task = one.begin("layer 1/1", 20_000_000);
    one.begin("merging", undefined).end("done");
    other.tell("trying again");
    for (let index = 0; index < 5; index++) {
      task.advance(1_000_000);
      ticker.pass(1000);
    }
    task.end("3 entries");
    progress.endSource(analyzed("a:1"));
    progress.endSource(failed("b\u001b:1"));
    ticker.pass(5000);
    progress.beginSource("c:1").begin("layer 1/1", 10_000_000).advance(5_000_000);
    ticker.pass(5000);
    progress.endSource({ source: "c:1", outcome: "notDone" });
    expect(lines).toEqual([
      "b\\x1b:1: trying again\n",
      "0 of 3 images: 5.00 MB, 1.00 MB/s\n",
      "[1/3] a:1: 2 layers (1 known before), 5 files, packages: apk 2 (1.2 s)\n",
      "[2/3] b\\x1b:1: IMAGE_NOT_FOUND: no such image (image: b\\x1b:1)\n",
      "2 of 3 images, 1 failed: 5.00 MB, 0 B/s, 5 s left\n",
      "2 of 3 images, 1 failed: 10.0 MB, 1.00 MB/s, 5 s left\n",
      "[3/3] c:1: not done\n",
    ]);
    progress[Symbol.dispose]();
    expect(ticker.timers).toBe(0);
  });
});

it("JSON lines of several sources have the documented shape", () => {
  const ticker = new FakeTicker();
  const lines: string[] = [];
  using progress = createJsonProgress((text) => lines.push(text), ticker);
  progress.plan(2);
  const task = progress.beginSource("a:1").begin("layer 1/1", 10);
  task.advance(10);
  ticker.pass(1000);
  progress.endSource(failed("a:1"));
  progress.endSource(analyzed("b:1"));
  const events = lines.map((line) => documents.progress.parse(JSON.parse(line)).progress);
  expect(events).toMatchObject([
    { event: "started", source: "a:1" },
    { event: "advanced", source: "a:1" },
    { event: "ended", source: "a:1", outcome: "not done" },
    { event: "sourceEnded", source: "a:1", outcome: "failed", sourcesEnded: 1, sourcesFailed: 1, sourcesTotal: 2 },
    { event: "sourceEnded", source: "b:1", outcome: "analyzed", sourcesEnded: 2, sourcesFailed: 1, sourcesTotal: 2 },
  ]);
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

  it("draws one task as one line, without a rate when it only waits, on a terminal that does not know its size too", async () => {
    const { ticker, stream, progress } = terminalProgress(0, 0);
    const screen = new Screen(80);
    const see = async () => {
      await new Promise((resolve) => stream.write("", resolve));
      screen.write(stream.text);
      stream.text = "";
      return screen.lines;
    };
    const task = progress.begin("moving", 10_000_000);
    ticker.pass(100);
    expect(await see()).toEqual(["moving  ░░░░░░░░░░░░░░░░░░░░    0%      0 B of 10.0 MB"]);
    task.advance(5_000_000);
    ticker.pass(1000);
    expect(await see()).toEqual([
      expect.stringMatching(/^moving {2}█{10}░{10} {3}50% {2}5[.]00 MB of 10[.]0 MB .*\/s .* left$/),
    ]);
    task.advance(5_000_000);
    ticker.pass(1000);
    expect(await see()).toEqual(["moving  ████████████████████  100%  10.0 MB of 10.0 MB"]);
    progress[Symbol.dispose]();
  });

  it("draws the layers of several sources and all of them together, and leaves ended sources above", async () => {
    const { ticker, progress, see } = terminalProgress(100, 24);
    progress.plan(4);
    const sources = ["oci:./a/rather/long/path/to/layout", "b:1", "c:1"].map((name) => progress.beginSource(name));
    const tasks = sources.map((source) => source.begin("layer sha256:0123456789ab", 10_000_000));
    for (let index = 0; index < 20; index++) {
      tasks[0]?.advance(250_000);
      tasks[1]?.advance(50_000);
      ticker.pass(100);
    }
    expect(await see()).toEqual([
      "…her/long/path/to/layout: layer sha256:0123456789ab   50%  5.00 MB of 10.0 MB  2.50 MB/s  2 s left",
      "b:1: layer sha256:0123456789ab                        10%  1.00 MB of 10.0 MB   500 kB/s  18 s left",
      "0 of 4 images                                        ░░░░░░░░░░░░░░░░░░░░    0%  6.00 MB  3.00 MB/s",
    ]);
    tasks[0]?.end("done");
    progress.endSource(analyzed("oci:./a/rather/long/path/to/layout"));
    progress.endSource(failed("b:1"));
    ticker.pass(100);
    expect(await see()).toEqual([
      "✓ oci:./a/rather/long/path/to/layout  2 layers (1 known before), 5 files, packages: apk 2 (1.2 s)",
      "✗ b:1  IMAGE_NOT_FOUND: no such image (image: b:1)",
      "2 of 4 images, 1 failed  ██████████░░░░░░░░░░   50%  6.00 MB  2.86 MB/s  3 s left",
    ]);
    progress.endSource({ source: "c:1", outcome: "notDone" });
    progress[Symbol.dispose]();
    expect((await see()).slice(2)).toEqual(["– c:1  not done"]);
    expect(ticker.timers).toBe(0);
  });

  it("of several sources is shown while none of them reads, until the last has ended", async () => {
    const { ticker, progress, see } = terminalProgress(80, 24);
    progress.plan(1);
    ticker.pass(100);
    expect(await see()).toEqual(["0 of 1 image  ░░░░░░░░░░░░░░░░░░░░    0%      0 B"]);
    progress.beginSource("a:1");
    progress.endSource(analyzed("a:1"));
    ticker.pass(100);
    expect(await see()).toEqual(["✓ a:1  2 layers (1 known before), 5 files, packages: apk 2 (1.2 s)"]);
    progress[Symbol.dispose]();
  });

  it("is gone, and the cursor is where it was, when it is disposed in the middle", async () => {
    const { ticker, stream, progress, see } = terminalProgress(80, 24);
    stream.write("before\n");
    progress.begin("layer", 10).advance(1);
    ticker.pass(100);
    expect((await see()).length).toBe(2);
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

  it.each([10, 20, 45, 80, 100])("of several sources fits into %d columns", async (columns) => {
    const { ticker, progress, see } = terminalProgress(columns, 8);
    progress.plan(1000);
    const tasks = Array.from({ length: 12 }, (_, index) =>
      progress.beginSource(`registry.example.com/team/app-${index}:1.2.3`).begin("layer sha256:0123456789ab", 1e8),
    );
    for (let index = 0; index < 10; index++) {
      for (const task of tasks) task.advance(1_000_000);
      ticker.pass(100);
      expect((await see()).length).toBeLessThanOrEqual(7);
    }
    if (columns >= 80)
      expect((await see())[0]).toMatch(
        /^….*\/app-0:1[.]2[.]3: layer sha256:0123456789ab {3}10% {2}10[.]0 MB of {2}100 MB/,
      );
    expect((await see())[6]?.startsWith(columns < 20 ? "0 of" : "0 of 1,000 images")).toBe(true);
    progress[Symbol.dispose]();
    expect(await see()).toEqual([]);
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
