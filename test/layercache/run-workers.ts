import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { openLayerCache } from "../../src/layercache/index.ts";
import { createCall, silentProgress } from "../../src/runtime/index.ts";
import { createRandom } from "../fault/random.ts";
import { diskUse, diskUseAtLeast } from "./disk-use.ts";
import type { WorkerReport, WorkerTask } from "./worker.ts";

export interface RunOptions {
  readonly directory: string;
  readonly seed: number;
  readonly bytesMax: number;
  /** Processes at once. */
  readonly processes: number;
  /** Processes in all; those that are killed count. */
  readonly processesInAll: number;
  readonly operations: number;
  /** What is taken up on the disk, if there is a better way than to walk through the directory. */
  readonly use?: () => number;
}

export interface RunReport {
  readonly looks: number;
  readonly highest: number;
  readonly killed: number;
  readonly ended: number;
  readonly hits: number;
  readonly downloads: number;
}

/**
 * Processes that share a cache, some of which are killed at any moment, while what lies in the directory is looked at.
 * @throws if it ever takes up more than the limit, or the cache is not in order afterwards
 */
export async function runWorkers(options: RunOptions): Promise<RunReport> {
  const { directory, bytesMax } = options;
  const random = createRandom(options.seed);
  const layersSeed = random.integer(1_000_000);
  const result = { looks: 0, highest: 0, killed: 0, ended: 0, hits: 0, downloads: 0 };
  let started = 0;
  const lane = async () => {
    while (started < options.processesInAll) {
      started++;
      const task: WorkerTask = {
        directory,
        bytesMax,
        seed: random.integer(1_000_000_000),
        layersSeed,
        layers: 20,
        layerBytesMax: Math.floor(bytesMax / 2),
        operations: options.operations,
      };
      // The first one fills it, whatever becomes of the others.
      const killAfterMs = started > 1 && random.next() < 0.5 ? random.integer(900) : undefined;
      const report = await runWorker(task, killAfterMs);
      if (report === undefined) result.killed++;
      else {
        result.ended++;
        result.hits += report.hits;
        result.downloads += report.downloads;
        if (report.told.length > 0) throw new Error(`a worker had trouble: ${report.told.join("; ")}`);
      }
    }
  };
  let isRunning = true;
  const use = options.use ?? (() => (existsSync(directory) ? diskUseAtLeast(directory) : 0));
  const look = async () => {
    while (isRunning) {
      const now = use();
      result.looks++;
      result.highest = Math.max(result.highest, now);
      if (now > bytesMax) throw new Error(`${now} bytes on the disk, more than ${bytesMax}`);
      await delay(2);
    }
  };
  const looking = look();
  looking.catch(() => undefined);
  try {
    await Promise.all(Array.from({ length: options.processes }, lane));
  } finally {
    isRunning = false;
  }
  await looking;
  await expectInOrder(directory, bytesMax);
  return result;
}

/** Runs one to its end, or kills it. */
export async function runWorker(task: WorkerTask, killAfterMs?: number): Promise<WorkerReport | undefined> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "worker.ts"), JSON.stringify(task)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk;
  });
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), killAfterMs);
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  clearTimeout(timer);
  if (signal === "SIGKILL") return undefined;
  if (code !== 0) throw new Error(`a worker failed: ${errors}`);
  return JSON.parse(output) as WorkerReport;
}

/** What the next process finds: entries that are sound, nothing of the dead, all within the limit. */
export async function expectInOrder(directory: string, bytesMax: number): Promise<void> {
  const call = createCall();
  const told: string[] = [];
  await using cache = await openLayerCache({ directory, bytesMax, tell: (text) => told.push(text) }, call);
  const stats = await cache.stats(call);
  const verification = await cache.verify(silentProgress, call);
  const count = (folder: string) => readdirSync(join(directory, folder)).length;
  const found = {
    told,
    reserved: stats.bytesReserved,
    inUse: stats.entriesInUse,
    damaged: verification.damaged,
    foreign: verification.foreign,
    partial: count("partial"),
    owners: count("owners"),
    missing: stats.entries - count("sha256"),
    isWithinLimit: diskUse(directory) <= Math.min(bytesMax, stats.bytesCounted),
  };
  const wanted = {
    ...{ told: [], reserved: 0, inUse: 0, damaged: [], foreign: [], partial: 0, owners: 1, missing: 0 },
    isWithinLimit: true,
  };
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`not in order: ${JSON.stringify(found)}`);
}
