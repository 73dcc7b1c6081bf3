import { readSync } from "node:fs";
import { type LayerCache, openLayerCache } from "../../src/layercache/index.ts";
import { createCall, onStep, silentProgress } from "../../src/runtime/index.ts";
import { createRandom, type SeededRandom } from "../fault/random.ts";
import { type ModelLayer, ModelSource, modelLayer } from "./model-source.ts";

/** What a process does that shares a cache with others. */
export interface WorkerTask {
  readonly directory: string;
  readonly bytesMax: number;
  readonly seed: number;
  /** The layers of all workers: their largest size, how many. */
  readonly layersSeed: number;
  readonly layers: number;
  readonly layerBytesMax: number;
  readonly operations: number;
  /** Dies at the n-th step of this name; `chunk`: of what its source sends. */
  readonly killAt?: { readonly step: string; readonly nth: number };
}

export interface WorkerReport {
  readonly operations: number;
  readonly hits: number;
  readonly downloads: number;
  readonly told: readonly string[];
}

const lanes = 3;

export function layersOf({ layersSeed, layers, layerBytesMax }: WorkerTask): ModelLayer[] {
  const random = createRandom(layersSeed);
  // Mostly small ones, some that fill a good part of the cache.
  return Array.from({ length: layers }, (_, place) =>
    modelLayer(layersSeed * 1000 + place, 1 + Math.floor(layerBytesMax * random.next() ** 2)),
  );
}

async function work(task: WorkerTask): Promise<WorkerReport> {
  const { killAt } = task;
  let seen = 0;
  const stepped = (step: string) => {
    if (step === killAt?.step && ++seen === killAt.nth) process.kill(process.pid, "SIGKILL");
  };
  onStep(({ name }) => stepped(name.replace("layercache ", "")));
  const random = createRandom(task.seed);
  const layers = layersOf(task);
  const told: string[] = [];
  const call = createCall();
  const source = new ModelSource(layers);
  source.onChunk = () => stepped("chunk");
  let hits = 0;
  {
    const tell = (text: string) => told.push(text);
    await using cache = await openLayerCache({ directory: task.directory, bytesMax: task.bytesMax, tell }, call);
    let left = task.operations;
    const lane = async () => {
      while (left-- > 0) hits += await operate(cache, source, random, random.pick(layers));
    };
    await Promise.all(Array.from({ length: lanes }, lane));
  }
  return { operations: task.operations, hits, downloads: source.opened.length, told };
}

/** Reads a layer, or begins to; asks, trims or looks through now and then. Throws if it gets other bytes than the layer's. */
async function operate(
  cache: LayerCache,
  source: ModelSource,
  random: SeededRandom,
  layer: ModelLayer,
): Promise<number> {
  const call = createCall();
  const kind = random.next();
  if (kind < 0.02) await cache.trim(random.integer(2_000_000), call);
  else if (kind < 0.03) await cache.verify(silentProgress, call);
  else if (kind < 0.05) await cache.stats(call);
  const cached = cache.before(source);
  const leaves = random.next() < 0.2 ? random.integer(layer.descriptor.size) : Number.POSITIVE_INFINITY;
  const breaks = random.next() < 0.1;
  {
    await using file = await cached.openFile(layer.descriptor, call);
    if (file) {
      const bytes = Buffer.alloc(file.size);
      readSync(file.descriptor, bytes, 0, file.size, file.start);
      if (!bytes.equals(layer.bytes)) throw new Error(`an entry has other bytes than layer ${layer.descriptor.digest}`);
      // Keeps it open while others want room.
      for (let turns = random.integer(1500); turns > 0; turns--) await turn();
      return 1;
    }
  }
  const failing = new ModelSource([layer]);
  failing.onChunk = async (position) => {
    await turn();
    if (breaks && position > leaves / 2) throw new Error("planned");
  };
  const through = breaks ? cache.before(failing) : cached;
  const got: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of await through.open(layer.descriptor, call)) {
      got.push(chunk as Buffer);
      length += (chunk as Buffer).length;
      if (length > leaves) return 0;
    }
  } catch (error) {
    if (breaks && error instanceof Error && error.message === "planned") return 0;
    throw error;
  }
  if (!Buffer.concat(got).equals(layer.bytes))
    throw new Error(`a stream has other bytes than layer ${layer.descriptor.digest}`);
  return 0;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

if (import.meta.main) {
  const report = await work(JSON.parse(process.argv[2] ?? "") as WorkerTask);
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
