import { once } from "node:events";
import { availableParallelism } from "node:os";
import { extname } from "node:path";
import type { Readable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { MessageChannel, type MessagePort, type Worker } from "node:worker_threads";
import { Piscina } from "piscina";
import { catalogers } from "../catalogers/index.ts";
import type { Limits } from "../config/index.ts";
import { isCode, StowageError, toStowageError } from "../errors/index.ts";
import { closeSpill, type LayerAnalysis, openSpill } from "../layer/index.ts";
import type { ImageLayer, LayerSource } from "../oci/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { chunkBytesMax, type FromWorker, type LayerTask, type LayerTaskResult, type ToWorker } from "./layer-task.ts";
import { ReadAhead } from "./read-ahead.ts";
import { Budget } from "./turns.ts";

/** Where threads find their module: in the sources, and in the compiled program, which keeps that name. */
const layerWorkerUrl = new URL(`../analysis/layer-worker${extname(import.meta.url)}`, import.meta.url).href;

/** An analysed layer; its document lies in `output`, an open spill that the taker closes. */
export interface AnalyzedLayer extends LayerAnalysis, Disposable {
  readonly output: number;
}

/** Half of a worker's young generation. The command's own is smaller, so that documents which pass as streams do not pile up in it. */
const workerSemiSpaceMb = 4;

/**
 * Where all objects of one kind happen to be alive at a collection of the young generation, as a batch of entries is, V8 makes the next ones in the old
 * generation at once: entries that pass as a stream then pile up there, tens of megabytes of them. Holds for all threads.
 */
const noPretenuring = "--no-allocation-site-pretenuring";

/** Worker threads that analyse layers, as many as there are cores. */
export class LayerPool implements AsyncDisposable {
  readonly concurrency = availableParallelism();
  /**
   * Layers that are being made at once, whatever the number of images: each has a lock with its connection, and open files. One more than threads: while
   * a document is stored, its thread goes on with the next layer.
   */
  readonly places = new Budget(this.concurrency + 1);
  /** Of the analyser that runs in the threads. */
  readonly fingerprint: string;
  readonly #limits: Limits;
  readonly #temporaryDirectory: string;
  readonly #ahead = new Map<string, ReadAhead>();
  #pool: Piscina | undefined;
  #holders = 0;

  constructor(limits: Limits, temporaryDirectory: string) {
    setFlagsFromString(noPretenuring);
    this.fingerprint = fingerprintOf(catalogers, limits);
    this.#limits = limits;
    this.#temporaryDirectory = temporaryDirectory;
  }

  /**
   * Analyses a layer; `onBytes` is told what was read of its blob.
   * @throws StowageError whatever is wrong with the layer, or what the source and its stream throw
   */
  async analyze(
    layer: ImageLayer,
    source: LayerSource,
    onBytes: (bytes: number) => void,
    call: Call,
  ): Promise<AnalyzedLayer> {
    const begun = this.#ahead.get(nameOf(layer));
    if (begun === undefined) return await this.#analyze(layer, source, onBytes, call);
    this.#ahead.delete(nameOf(layer));
    return await begun.take(onBytes, call);
  }

  /**
   * Begins to read layers before it is known that they must be, as many as there are threads, the largest ones: {@link analyze} goes on with them. Those
   * that it never gets are given up with the threads.
   */
  readAhead(layers: readonly ImageLayer[], source: LayerSource, call: Call): void {
    const own = layers.filter(({ isForeign }) => !isForeign);
    const byName = new Map(own.map((layer) => [nameOf(layer), layer]));
    const largest = [...byName].sort(([, a], [, b]) => b.descriptor.size - a.descriptor.size);
    for (const [name, layer] of largest.slice(0, this.concurrency)) {
      this.#ahead.set(name, new ReadAhead((onBytes, under) => this.#analyze(layer, source, onBytes, under), call));
    }
  }

  async #analyze(
    { descriptor, diffId, compression }: ImageLayer,
    source: LayerSource,
    onBytes: (bytes: number) => void,
    call: Call,
  ): Promise<AnalyzedLayer> {
    throwIfAborted(call);
    await using file = await source.openFile(descriptor, call);
    const output = openSpill(this.#temporaryDirectory);
    const scratch = openSpill(this.#temporaryDirectory);
    const { port1, port2 } = new MessageChannel();
    const done = new AbortController();
    /** Those that there were when the call was aborted. */
    const threads: Worker[] = [];
    let bytesTold = 0;
    const tell = (bytes: number) => {
      bytesTold += bytes;
      onBytes(bytes);
    };
    const feed = feedBlob(port1, () => source.open(descriptor, call), tell);
    try {
      const blob = file && { ...file, [Symbol.asyncDispose]: undefined };
      const task: LayerTask = {
        expected: { blobDigest: descriptor.digest, blobBytes: descriptor.size, diffId, compression },
        fingerprint: this.fingerprint,
        limits: this.#limits,
        scratch,
        output,
        file: blob,
        port: port2,
      };
      const pool = this.#workers();
      call.signal.addEventListener("abort", () => threads.push(...pool.threads), { once: true, signal: done.signal });
      const result = (await pool.run(task, {
        transferList: [port2],
        signal: call.signal,
      })) as LayerTaskResult;
      if ("error" in result) {
        const error = StowageError.deserialize(result.error);
        // The same with its cause, if that is why the thread failed: what was wrong before the source failed stays what is said.
        throw isCode(feed.failure, error.code) ? feed.failure : error;
      }
      // Its last messages may still be on their way.
      if (file) tell(result.fileBytesRead - bytesTold);
      return { ...result.analysis, output, [Symbol.dispose]: () => closeSpill(output) };
    } catch (error) {
      // An aborted call ends its thread, but not at once: until then it reads and writes descriptors that others must not get.
      await Promise.all(threads.filter((thread) => !this.#pool?.threads.includes(thread)).map(ended));
      closeSpill(output);
      throwIfAborted(call);
      throw isCode(error, "INTERNAL_FAILURE") ? error : toStowageError(error);
    } finally {
      done.abort();
      feed.stop();
      closeSpill(scratch);
    }
  }

  /**
   * Keeps the threads until it is disposed of, as long as others do. What they have compiled is worth more than their memory while layers are to come;
   * after the last one merging needs the memory.
   */
  hold(): AsyncDisposable {
    this.#holders++;
    return {
      [Symbol.asyncDispose]: async () => {
        if (--this.#holders === 0) await this.#release();
      },
    };
  }

  /**
   * Starts a thread, for who knows that layers will come while something else still takes its time. One: it gets the largest layer, which the image
   * waits for, and all may be known already.
   */
  start(): void {
    this.#workers(1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#release();
  }

  async #release(): Promise<void> {
    const ahead = [...this.#ahead.values()];
    this.#ahead.clear();
    await Promise.all(ahead.map((each) => each[Symbol.asyncDispose]()));
    const pool = this.#pool;
    this.#pool = undefined;
    await pool?.destroy();
  }

  #workers(minThreads = 0): Piscina {
    if (!this.#pool) {
      // Read when a thread starts; its resource limits can't say it against the command's own option.
      setFlagsFromString(`--max-semi-space-size=${workerSemiSpaceMb}`);
      this.#pool = new Piscina({
        filename: layerWorkerUrl,
        minThreads,
        maxThreads: this.concurrency,
        idleTimeout: Number.POSITIVE_INFINITY,
        trackUnmanagedFds: false,
        resourceLimits: { maxOldGenerationSizeMb: 512 },
      });
    }
    return this.#pool;
  }
}

/** Blobs of one diffID differ in how they are compressed. */
function nameOf({ descriptor, diffId }: ImageLayer): string {
  return `${descriptor.digest} ${diffId}`;
}

async function ended(thread: Worker): Promise<void> {
  // The number of a thread that is no more.
  if (thread.threadId !== -1) await once(thread, "exit");
}

interface Feed {
  /** What opening or reading the blob threw, as it was thrown. */
  readonly failure: unknown;
  stop(): void;
}

/** Answers a worker's wishes for the blob's bytes. */
function feedBlob(port: MessagePort, open: () => Promise<Readable>, onBytes: (bytes: number) => void): Feed {
  let stream: Readable | undefined;
  let chunks: AsyncIterator<Buffer> | undefined;
  let rest: Buffer = Buffer.alloc(0);
  let failure: unknown;
  let turn: Promise<void> = Promise.resolve();

  const send = (message: ToWorker, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
  const next = async (): Promise<void> => {
    if (rest.length === 0) {
      const { value, done } = (await chunks?.next()) ?? { value: undefined, done: true };
      if (done) {
        send({ end: true });
        return;
      }
      rest = value;
      onBytes(rest.length);
    }
    const piece = rest.subarray(0, chunkBytesMax);
    rest = rest.subarray(piece.length);
    const chunk = ownBuffer(piece);
    send({ chunk }, [chunk]);
  };
  const answer = async (wish: FromWorker): Promise<void> => {
    if (typeof wish === "object") onBytes(wish.read);
    else if (wish === "close") stream?.destroy();
    else if (wish === "open") {
      stream?.destroy();
      rest = Buffer.alloc(0);
      stream = await open();
      chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    } else if (!stream?.destroyed || rest.length > 0 || stream.readableEnded || stream.errored) await next();
  };
  port.on("message", (wish: FromWorker) => {
    turn = turn
      .then(() => answer(wish))
      .catch((error: unknown) => {
        failure ??= error;
        send({ error: toStowageError(error).serialize() });
      });
  });
  return {
    get failure() {
      return failure;
    },
    stop() {
      port.close();
      stream?.destroy();
    },
  };
}

/** The piece's memory, if it has it for itself, so that it can be given to another thread; else a copy. */
function ownBuffer(piece: Buffer): ArrayBuffer {
  const { buffer } = piece;
  return buffer instanceof ArrayBuffer && piece.length === buffer.byteLength ? buffer : new Uint8Array(piece).buffer;
}
