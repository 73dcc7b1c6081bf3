import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer, text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isCode } from "../../src/errors/index.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import type { PhysicalKey } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { bodyOf, contentOf, localfsHistory } from "./localfs-history.ts";
import { createRandom } from "./random.ts";

const call = createCall();
const history = localfsHistory();
const victim = new URL("./localfs-victim.ts", import.meta.url).pathname;
/** The same seed kills at the same places. */
const seed = 20_261_125;

let parent: string;
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), "stowage-localfs-kill-"));
});
afterEach(() => rm(parent, { recursive: true, force: true }));

interface Life {
  readonly steps: readonly string[];
  /** How many operations had returned. */
  readonly done: number;
  readonly wasKilled: boolean;
}

/** Runs a victim to its end. `untilLine`: kills it from outside, when it has said so many lines, wherever it is then. */
async function live(root: string, killAt: number, untilLine = Number.POSITIVE_INFINITY): Promise<Life> {
  const child = spawn(process.execPath, [victim, root, String(killAt)], { stdio: ["ignore", "pipe", "pipe"] });
  let lines = 0;
  child.stdout.on("data", (bytes: Buffer) => {
    for (const byte of bytes) if (byte === 10 && ++lines === untilLine) child.kill("SIGKILL");
  });
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("close", (_, signal) => resolve(signal)));
  const [output, errors, signal] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (signal !== "SIGKILL" && child.exitCode !== 0) throw new Error(`the victim failed: ${errors}`);
  const said = output.split("\n");
  return {
    steps: said.filter((line) => line.startsWith("step ")),
    done: said.filter((line) => line.startsWith("done ")).length,
    wasKilled: signal === "SIGKILL",
  };
}

/** Looks at what is left, and cleans it up as the reaper would. */
async function examine(root: string, { done }: Life, where: string): Promise<void> {
  const driver = await openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, call);
  const expected = new Map<PhysicalKey, "whole" | "missing">();
  for (const { operation, key } of history.slice(0, done)) expected.set(key, operation === "put" ? "whole" : "missing");
  const begun = history[done]?.key;
  const listed = new Map<string, number>();
  for await (const { key, sizeBytes } of driver.list(undefined, call)) listed.set(key, sizeBytes);
  for (const key of new Set(history.map((entry) => entry.key))) {
    const found = await driver.get(key, undefined, call).then(buffer, (error: unknown) => {
      if (isCode(error, "BACKEND_KEY_MISSING")) return undefined;
      throw error;
    });
    const state = found === undefined ? "missing" : found.equals(contentOf(key)) ? "whole" : "damaged";
    if (key === begun) expect(["whole", "missing"], `${where}: ${key}`).toContain(state);
    else expect(state, `${where}: ${key}`).toBe(expected.get(key) ?? "missing");
    expect(listed.get(key), `${where}: ${key} in the listing`).toBe(found?.length);
    await driver.purge(key, undefined, call);
    // The key is free for whoever goes on.
    await driver.put(key, bodyOf(key), call);
    await driver.delete(key, call);
  }
  const left = await readdir(root, { recursive: true, withFileTypes: true });
  expect(
    left.filter((entry) => !entry.isDirectory()),
    where,
  ).toEqual([]);
}

test("a process that is killed at each of its steps: blobs are whole or absent, what had returned holds", async () => {
  const whole = await live(join(parent, "whole"), 0);
  expect(whole).toMatchObject({ done: history.length, wasKilled: false });
  await examine(join(parent, "whole"), whole, "unharmed");
  expect(whole.steps.length).toBeGreaterThan(20);
  for (let step = 1; step <= whole.steps.length; step++) {
    const root = join(parent, String(step));
    const life = await live(root, step);
    expect(life.wasKilled).toBe(true);
    await examine(root, life, `step ${step}, ${life.steps.at(-1)}`);
  }
});

test("a process that is killed from outside, at any moment", async () => {
  const random = createRandom(seed);
  for (let round = 0; round < 12; round++) {
    const root = join(parent, String(round));
    const untilLine = 1 + random.integer(28);
    const life = await live(root, 0, untilLine);
    await examine(root, life, `seed ${seed}, round ${round}, after line ${untilLine}`);
  }
});
