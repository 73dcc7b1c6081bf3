import type { Database } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { layerRef, markLayerFound } from "../images/index.ts";
import { type ExpectedLayer, type LayerDocument, readSpill } from "../layer/index.ts";
import type { ObjectStore } from "../objects/index.ts";
import type { ImageLayer, LayerSource } from "../oci/index.ts";
import { announce, type Call, type Progress, type ProgressTask, throwIfAborted } from "../runtime/index.ts";
import type { AnalyzedLayer, LayerPool } from "./layer-pool.ts";
import { forgetIfDamaged, lockLayer } from "./lost-documents.ts";
import type { LayerReport } from "./report.ts";
import { findLayer, recordAccess, recordLayer, useLayers } from "./rows.ts";
import { Turns } from "./turns.ts";

/** A layer of the image at hand with its document's key. */
export interface KeyedLayer {
  readonly position: number;
  readonly layer: ImageLayer;
  /** Undefined for a layer that is not fetched. */
  readonly key: string | undefined;
}

/** A processed layer: its report, and what it cost to keep. */
export interface ProcessedLayer {
  readonly report: LayerReport;
  readonly bytesStored: number;
  /** The document that was made just now, as long as it is kept open: the same bytes as the stored one, without a way through the store. */
  readonly document?: LayerDocument;
}

/** Documents kept open for merging; each is an open file. */
const openDocumentsMax = 64;

/** Sees to it that layers have documents: a stored one where it may serve, else the layer is read now. */
export class Layers {
  readonly #database: Database;
  readonly #store: ObjectStore;
  readonly #pool: LayerPool;
  readonly #fingerprint: string;
  /** Images that are analysed at the same time here read a layer that they share once. The lock in the database is for other processes. */
  readonly #turns = new Turns();

  constructor(database: Database, store: ObjectStore, pool: LayerPool, fingerprint: string) {
    this.#database = database;
    this.#store = store;
    this.#pool = pool;
    this.#fingerprint = fingerprint;
  }

  /** The key of a layer's document: what the layer is, and what analyses it. */
  keyOf(layer: ImageLayer): string | undefined {
    return layer.isForeign ? undefined : `${layer.diffId}/${this.#fingerprint}`;
  }

  /**
   * All layers, as many at once as there are threads, largest first; the reports come in the image's order. Documents that are made stay open until
   * `keptOpen` is disposed of.
   */
  async process(
    layers: readonly KeyedLayer[],
    source: LayerSource,
    account: string,
    keptOpen: DisposableStack,
    progress: Progress,
    call: Call,
  ): Promise<readonly ProcessedLayer[]> {
    await using _ = this.#pool.hold();
    const results: ProcessedLayer[] = [];
    const stop = new AbortController();
    const inner: Call = { ...call, signal: AbortSignal.any([call.signal, stop.signal]) };
    // Twice the same layer in one image is read once: the second waits for the first and finds its document.
    const queue = layers
      .toSorted((a, b) => b.layer.descriptor.size - a.layer.descriptor.size || a.position - b.position)
      // All begin at once, so that a display knows the total from the start.
      .map((keyed) => ({ keyed, task: progress.begin(label(keyed.layer), sizeToRead(keyed)) }));
    const work = async (): Promise<void> => {
      for (let next = queue.shift(); next && !stop.signal.aborted; next = queue.shift()) {
        try {
          const made = await this.#one(next.keyed, next.task, source, account, progress, inner);
          results[next.keyed.position] = this.#keep(made, results, keptOpen);
        } catch (error) {
          stop.abort(error);
          throw error;
        }
      }
    };
    const outcomes = await Promise.allSettled(Array.from({ length: this.#pool.concurrency + 1 }, work));
    call.signal.throwIfAborted();
    if (stop.signal.aborted) throw stop.signal.reason;
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    return results;
  }

  /**
   * Forgets those of the layers' documents that can't be read, so that the layers are read again. Returns how many.
   */
  async forgetDamaged(layers: readonly KeyedLayer[], progress: Progress, call: Call): Promise<number> {
    let forgotten = 0;
    for (const key of new Set(layers.flatMap((layer) => layer.key ?? []))) {
      if (await forgetIfDamaged(this.#database, this.#store, key, progress, call)) forgotten++;
    }
    if (forgotten > 0) progress.tell("stored layers of this image are damaged; reading them again");
    return forgotten;
  }

  async #one(
    { layer, key }: KeyedLayer,
    task: ProgressTask,
    source: LayerSource,
    account: string,
    progress: Progress,
    call: Call,
  ): Promise<MadeLayer> {
    const begun = performance.now();
    const report = (
      outcome: LayerReport["outcome"],
      entries: number | undefined,
      bytesRead: number,
      bytesStored: number,
    ) => ({
      report: {
        blobDigest: layer.descriptor.digest,
        diffId: layer.diffId,
        mediaType: layer.descriptor.mediaType,
        blobBytes: layer.descriptor.size,
        outcome,
        entries,
        bytesRead,
        durationMs: Math.round(performance.now() - begun),
      },
      bytesStored,
    });
    if (key === undefined) {
      task.end("not fetched: a foreign layer");
      return report("notFetched", undefined, 0, 0);
    }
    const isReusable = () => this.#reuse(layer, key, source, account, call);
    if (await isReusable()) {
      task.end("known already");
      return report("reused", undefined, 0, 0);
    }
    // In this order, so that who waits for a turn has no place, and who waits for a place no connection.
    using _turn = await this.#turns.take(key, call);
    using _place = await this.#pool.places.take(call);
    await using lock = await lockLayer(this.#database, key, progress, call);
    // Whoever had the turn or the lock before may have done the work.
    if (await isReusable()) {
      task.end("known already");
      return report("reused", undefined, 0, 0);
    }
    const guarded: Call = { ...call, signal: AbortSignal.any([call.signal, lock.signal]) };
    let bytesRead = 0;
    const onBytes = (bytes: number) => {
      bytesRead += bytes;
      task.advance(bytes);
    };
    const { analyzed, bytesStored } = await this.#read(layer, key, source, account, onBytes, guarded);
    const entries = analyzed.facts.tarEntries;
    task.end(`${entries.toLocaleString("en-US")} entries`);
    return { ...report("analyzed", entries, bytesRead, bytesStored), analyzed };
  }

  #keep(
    { analyzed, ...processed }: MadeLayer,
    others: readonly ProcessedLayer[],
    keptOpen: DisposableStack,
  ): ProcessedLayer {
    if (!analyzed) return processed;
    // Sparse: those that are done.
    if (others.filter(({ document }) => document !== undefined).length >= openDocumentsMax) {
      analyzed[Symbol.dispose]();
      return processed;
    }
    keptOpen.use(analyzed);
    return { ...processed, document: { name: `document of layer ${analyzed.facts.diffId}`, open: openerOf(analyzed) } };
  }

  /**
   * Whether a stored document may serve. A diffID in a configuration is its author's claim: only a pair of blob and diffID that stowage has read
   * itself counts, and only for an account that may read the blob.
   */
  async #reuse(layer: ImageLayer, key: string, source: LayerSource, account: string, call: Call): Promise<boolean> {
    const known = await findLayer(this.#database, account, key, layer.descriptor.digest, layer.diffId);
    if (!known.isVerified || !known.hasDocument) return false;
    const mayRead = known.isAccessible || (source.isAuthority && (await source.has(layer.descriptor, call)));
    if (!mayRead) return false;
    // Images of one base come one after the other; the publication of each renews and locks what it stands on.
    if (known.isAccessible && known.isJustUsed) return true;
    return this.#database.transaction(async (tx) => {
      if (!known.isAccessible) await recordAccess(tx, account, layer.descriptor.digest);
      return (await useLayers(tx, [key])).has(key);
    }, call);
  }

  async #read(
    layer: ImageLayer,
    key: string,
    source: LayerSource,
    account: string,
    onBytes: (bytes: number) => void,
    call: Call,
  ): Promise<{ analyzed: AnalyzedLayer; bytesStored: number }> {
    const { descriptor, diffId, compression } = layer;
    const expected: ExpectedLayer = { blobDigest: descriptor.digest, blobBytes: descriptor.size, diffId, compression };
    using opened = new DisposableStack();
    const blob = { openFile: () => source.openFile(descriptor, call), open: () => source.open(descriptor, call) };
    const analyze = () => this.#pool.analyze(expected, this.#fingerprint, blob, onBytes, call);
    const analyzed = opened.use(
      await analyze().catch(async (error: unknown) => {
        throwIfAborted(call);
        // Whatever failed, the fault may be of the bytes that a cache has kept; then it forgets them, and there are others.
        if (!(await source.recheck(descriptor, call))) throw error;
        return await analyze();
      }),
    );
    if (analyzed.facts.diffId !== diffId) {
      throw new StowageError("INTERNAL_FAILURE", { reason: "a document of another layer" });
    }
    announce("analysis layer read", { layerKey: key });
    const body = { open: openerOf(analyzed), sizeBytes: analyzed.documentBytes };
    const staged = await this.#store.stage(layerRef(key), body, call);
    await this.#database.transaction(async (tx) => {
      await this.#store.publish(tx, [staged]);
      await recordLayer(tx, {
        layerKey: key,
        fingerprint: this.#fingerprint,
        blobDigest: descriptor.digest,
        diffId,
        blobBytes: descriptor.size,
        layerBytes: analyzed.facts.layerBytes,
      });
      await markLayerFound(tx, key);
      await recordAccess(tx, account, descriptor.digest);
    }, call);
    announce("analysis layer published", { layerKey: key });
    opened.move();
    return { analyzed, bytesStored: staged.storedBytes };
  }
}

/** A processed layer with its document as long as it is open; whoever takes it closes it. */
interface MadeLayer extends ProcessedLayer {
  readonly analyzed?: AnalyzedLayer;
}

function openerOf({ output, documentBytes }: AnalyzedLayer) {
  return async () => readSpill(output, documentBytes);
}

function sizeToRead({ layer, key }: KeyedLayer): number | undefined {
  return key === undefined ? undefined : layer.descriptor.size;
}

function label(layer: ImageLayer): string {
  return `layer ${layer.descriptor.digest.slice(0, 19)}`;
}
