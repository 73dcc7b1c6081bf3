import type { Database } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { layerRef, markLayerFound } from "../images/index.ts";
import { type LayerDocument, readSpill, streamSpill } from "../layer/index.ts";
import type { ObjectStore } from "../objects/index.ts";
import type { ImageLayer, LayerSource } from "../oci/index.ts";
import {
  announce,
  type Call,
  eachAtOnce,
  type Progress,
  type ProgressTask,
  plural,
  throwIfAborted,
} from "../runtime/index.ts";
import type { AnalyzedLayer, LayerPool } from "./layer-pool.ts";
import { forgetIfDamaged, lockLayer } from "./lost-documents.ts";
import type { LayerReport } from "./report.ts";
import { findLayers, recordAccess, recordLayer, useLayers } from "./rows.ts";
import { Turns } from "./turns.ts";

/** A layer of the image at hand with its document's key. */
export interface KeyedLayer {
  readonly position: number;
  readonly layer: ImageLayer;
  /** Undefined for a layer that is not fetched. */
  readonly key: string | undefined;
}

interface FetchedLayer extends KeyedLayer {
  readonly key: string;
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

/** Questions whether layers may be read, of one image to its source. */
const questionsAtOnce = 4;

/** Sees to it that layers have documents: a stored one where it may serve, else the layer is read now. */
export class Layers {
  readonly #database: Database;
  readonly #store: ObjectStore;
  readonly #pool: LayerPool;
  /** Images that are analysed at the same time here read a layer that they share once. The lock in the database is for other processes. */
  readonly #turns = new Turns();

  constructor(database: Database, store: ObjectStore, pool: LayerPool) {
    this.#database = database;
    this.#store = store;
    this.#pool = pool;
  }

  /** The key of a layer's document: what the layer is, and what analyses it. */
  keyOf(layer: ImageLayer): string | undefined {
    return layer.isForeign ? undefined : `${layer.diffId}/${this.#pool.fingerprint}`;
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
    const known = await this.#reusable(layers.filter(isFetched), source, account, inner);
    const queue: { readonly fetched: FetchedLayer; readonly task: ProgressTask }[] = [];
    for (const keyed of layers.toSorted(largestFirst)) {
      const { position, layer } = keyed;
      // All begin at once, so that a display knows the total from the start.
      const task = progress.begin(label(layer), sizeToRead(keyed));
      if (isFetched(keyed) && !known.has(keyed)) {
        queue.push({ fetched: keyed, task });
        continue;
      }
      const outcome = isFetched(keyed) ? "reused" : "notFetched";
      task.end(outcome === "reused" ? "known already" : "not fetched: a foreign layer");
      results[position] = { report: unreadReport(layer, outcome), bytesStored: 0 };
    }
    // Whoever comes beside those that have a thread each waits until they have: a large layer that gets one late is what the image waits for.
    const { concurrency } = this.#pool;
    const busy = Promise.withResolvers<void>();
    let idle = Math.min(concurrency, queue.length);
    const onRead = () => {
      if (--idle <= 0) busy.resolve();
    };
    // Twice the same layer in one image is read once: the second waits for the first and finds its document.
    const work = async (isBeside: boolean): Promise<void> => {
      if (isBeside) await busy.promise;
      for (let next = queue.shift(); next && !stop.signal.aborted; next = queue.shift()) {
        try {
          const made = await this.#one(next.fetched, next.task, source, account, onRead, progress, inner);
          results[next.fetched.position] = this.#keep(made, results, keptOpen);
        } catch (error) {
          stop.abort(error);
          busy.resolve();
          throw error;
        }
      }
      busy.resolve();
    };
    const outcomes = await Promise.allSettled(
      Array.from({ length: concurrency + 1 }, (_, at) => work(at === concurrency)),
    );
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

  /** @param onRead told when nothing keeps the layer from a thread any more */
  async #one(
    fetched: FetchedLayer,
    task: ProgressTask,
    source: LayerSource,
    account: string,
    onRead: () => void,
    progress: Progress,
    call: Call,
  ): Promise<MadeLayer> {
    const { layer, key } = fetched;
    const begun = performance.now();
    // In this order, so that who waits for a turn has no place, and who waits for a place no connection.
    using _turn = await this.#turns.take(key, call);
    using _place = await this.#pool.places.take(call);
    await using lock = await lockLayer(this.#database, key, progress, call);
    // Whoever had the turn or the lock before may have done the work.
    if ((await this.#reusable([fetched], source, account, call)).size > 0) {
      task.end("known already");
      return { report: unreadReport(layer, "reused"), bytesStored: 0 };
    }
    const guarded: Call = { ...call, signal: AbortSignal.any([call.signal, lock.signal]) };
    let bytesRead = 0;
    const onBytes = (bytes: number) => {
      bytesRead += bytes;
      task.advance(bytes);
    };
    onRead();
    const { analyzed, bytesStored } = await this.#read(layer, key, source, account, onBytes, guarded);
    const entries = analyzed.facts.tarEntries;
    task.end(plural(entries, "entry", "entries"));
    const durationMs = Math.round(performance.now() - begun);
    const report = { ...unreadReport(layer, "analyzed"), entries, bytesRead, durationMs };
    return { report, bytesStored, analyzed };
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
    const { output, documentBytes, facts } = analyzed;
    const open = async () => readSpill(output, documentBytes);
    return { ...processed, document: { name: `document of layer ${facts.diffId}`, open } };
  }

  /**
   * Those for which a stored document may serve. A diffID in a configuration is its author's claim, and so are size and compression in a manifest: only a
   * pair of blob and diffID counts that stowage has read itself under such a descriptor, and only for an account that may read the blob. What is refused
   * when it is read is refused when it is known.
   */
  async #reusable(
    layers: readonly FetchedLayer[],
    source: LayerSource,
    account: string,
    call: Call,
  ): Promise<ReadonlySet<FetchedLayer>> {
    const asked = layers.map(({ key, layer: { descriptor, diffId, compression } }) => ({
      layerKey: key,
      blobDigest: descriptor.digest,
      blobBytes: descriptor.size,
      diffId,
      compression,
    }));
    const found = await findLayers(this.#database, account, asked);
    const serving = layers
      .map((fetched, at) => ({ fetched, known: found[at] }))
      .filter(({ known }) => known?.isVerified && known.hasDocument);
    const readable: typeof serving = [];
    await eachAtOnce(serving, questionsAtOnce, async (each) => {
      const { known, fetched } = each;
      const mayRead = known?.isAccessible || (source.isAuthority && (await source.has(fetched.layer.descriptor, call)));
      if (mayRead) readable.push(each);
    });
    // Images of one base come one after the other; the publication of each renews and locks what it stands on.
    const isSettled = ({ known }: (typeof serving)[number]) => known?.isAccessible && known.isJustUsed;
    const renewed = readable.filter((each) => !isSettled(each));
    if (renewed.length === 0) return new Set(readable.map(({ fetched }) => fetched));
    const alive = await this.#database.transaction(async (tx) => {
      const shown = renewed.filter(({ known }) => !known?.isAccessible);
      await recordAccess(
        tx,
        account,
        shown.map(({ fetched }) => fetched.layer.descriptor.digest),
      );
      return await useLayers(
        tx,
        renewed.map(({ fetched }) => fetched.key),
      );
    }, call);
    const stays = readable.filter((each) => isSettled(each) || alive.has(each.fetched.key));
    return new Set(stays.map(({ fetched }) => fetched));
  }

  async #read(
    layer: ImageLayer,
    key: string,
    source: LayerSource,
    account: string,
    onBytes: (bytes: number) => void,
    call: Call,
  ): Promise<{ analyzed: AnalyzedLayer; bytesStored: number }> {
    const { descriptor, diffId } = layer;
    using opened = new DisposableStack();
    const analyze = () => this.#pool.analyze(layer, source, onBytes, call);
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
    const { output, documentBytes } = analyzed;
    const body = { open: async () => streamSpill(output, documentBytes), sizeBytes: documentBytes };
    const staged = await this.#store.stage(layerRef(key), body, call);
    await this.#database.transaction(async (tx) => {
      await this.#store.publish(tx, [staged]);
      await recordLayer(tx, {
        layerKey: key,
        fingerprint: this.#pool.fingerprint,
        blobDigest: descriptor.digest,
        diffId,
        blobBytes: descriptor.size,
        compression: layer.compression,
        layerBytes: analyzed.facts.layerBytes,
      });
      await markLayerFound(tx, key);
      await recordAccess(tx, account, [descriptor.digest]);
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

function isFetched(layer: KeyedLayer): layer is FetchedLayer {
  return layer.key !== undefined;
}

function largestFirst(a: KeyedLayer, b: KeyedLayer): number {
  return b.layer.descriptor.size - a.layer.descriptor.size || a.position - b.position;
}

/** Of a layer nothing of which was read. */
function unreadReport({ descriptor, diffId }: ImageLayer, outcome: LayerReport["outcome"]): LayerReport {
  return {
    blobDigest: descriptor.digest,
    diffId,
    mediaType: descriptor.mediaType,
    blobBytes: descriptor.size,
    outcome,
    entries: undefined,
    bytesRead: 0,
    durationMs: 0,
  };
}

function sizeToRead({ layer, key }: KeyedLayer): number | undefined {
  return key === undefined ? undefined : layer.descriptor.size;
}

function label(layer: ImageLayer): string {
  return `layer ${layer.descriptor.digest.slice(0, 19)}`;
}
