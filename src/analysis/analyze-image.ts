import { Readable } from "node:stream";
import { catalogers } from "../catalogers/index.ts";
import type { Limits } from "../config/index.ts";
import type { Database, Transaction } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import {
  type AnalysisDocument,
  analysisRef,
  encodeAnalysisDocument,
  holdImage,
  type ImageLayerRecord,
  type ImageRecord,
  Images,
  indexRef,
  layerRef,
  manifestRef,
  storedLayer,
  type TagName,
  writeImage,
  writeParent,
  writeTag,
} from "../images/index.ts";
import type { JsonValue } from "../layer/index.ts";
import type { ObjectRef, ObjectStore, StagedObject } from "../objects/index.ts";
import { formatPlatform, type ImageSource, type Platform, type ResolvedImage } from "../oci/index.ts";
import { announce, type Call, type Progress, plural } from "../runtime/index.ts";
import { isDamage, readThrough } from "./damage.ts";
import { LayerPool } from "./layer-pool.ts";
import { type KeyedLayer, Layers, type ProcessedLayer } from "./layers.ts";
import { reconcileImage } from "./reconcile.ts";
import type { AnalysisReport } from "./report.ts";
import { useLayers } from "./rows.ts";
import { Budget, Turns } from "./turns.ts";

/** A full tag and its parts. */
export interface ImageName extends TagName {
  readonly fullTag: string;
}

export interface AnalysisRequest {
  readonly account: string;
  readonly source: ImageSource;
  readonly platform: Platform | undefined;
  /** The name to keep the image under, given what the source suggests. */
  readonly nameFor: (image: ResolvedImage) => ImageName | undefined;
  readonly progress: Progress;
}

/** A layer document can go between its use and the image's publication, if nobody used it for long, and a known image when it is deleted; then it is made again. */
const attemptsMax = 3;

/**
 * Layers of images that are merged and published at once, in bytes of their blobs: the analysis document of an image is in memory, and grows with what
 * the image holds. Small images go on side by side, a large one waits until it has the memory for itself.
 */
const mergedBytesMax = 256 * 2 ** 20;

/**
 * Analyses images. What is durable when:
 *
 * | step | durable | a crash leaves |
 * |---|---|---|
 * | a layer is read | – | nothing: spills have no names |
 * | its document is staged | a pending location with its bytes | garbage that the reaper finds |
 * | and published | the layer's document, its verified pair | a document that the next run uses |
 * | the image's documents are staged | pending locations | garbage that the reaper finds |
 * | and published, with rows and tag, in one transaction | the whole image | the whole image |
 */
export class Analyzer implements AsyncDisposable {
  readonly #database: Database;
  readonly #store: ObjectStore;
  readonly #limits: Limits;
  readonly #pool: LayerPool;
  readonly #layers: Layers;
  readonly #merging = new Budget(mergedBytesMax);
  /** Several names of one image are analysed one after the other: all but the first find it known. */
  readonly #turns = new Turns();

  /** @param pool threads, started before perhaps; closed with the analyser */
  constructor(
    database: Database,
    store: ObjectStore,
    limits: Limits,
    temporaryDirectory: string,
    pool = new LayerPool(limits, temporaryDirectory),
  ) {
    this.#database = database;
    this.#store = store;
    this.#limits = limits;
    this.#pool = pool;
    this.#layers = new Layers(database, store, pool);
  }

  /** Keeps the threads between images, until it is disposed of. */
  hold(): AsyncDisposable {
    return this.#pool.hold();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }

  async analyze(request: AnalysisRequest, call: Call): Promise<AnalysisReport> {
    const begun = performance.now();
    const { account, source, progress } = request;
    const image = await source.resolve(request.platform, call);
    const name = request.nameFor(image);
    using _turn = await this.#turns.take(`${account} ${image.digest}`, call);
    const layers = this.#layers;
    const keyed = image.layers.map((layer, position): KeyedLayer => ({ position, layer, key: layers.keyOf(layer) }));
    for (let attempt = 1; ; attempt++) {
      using keptOpen = new DisposableStack();
      const processed = await layers.process(keyed, source.layers, account, keptOpen, progress, call);
      using _memory = await this.#merging.take(call, blobBytesOf(image));
      const known = await this.#known(account, image, keyed, processed, call);
      try {
        const document = known?.document ?? (await this.#document(image, keyed, processed, progress, call));
        const bytesStored = await this.#publish(account, image, keyed, document, known?.record, name, call);
        return this.#report(image, name, document, processed, bytesStored, known !== undefined, begun);
      } catch (error) {
        if (attempt >= attemptsMax) throw error;
        const isGone = error instanceof LayerGoneError || error instanceof ImageGoneError;
        const mayHelp = isGone || (isDamage(error) && (await layers.forgetDamaged(keyed, progress, call)) > 0);
        if (!mayHelp) throw error;
      }
    }
  }

  /**
   * The stored analysis, if the image is there, nothing of it had to be read again, and each of its documents can be read: whoever analyses an
   * image again, because something of it is damaged, must not be told that it is known.
   */
  async #known(
    account: string,
    image: ResolvedImage,
    layers: readonly KeyedLayer[],
    processed: readonly ProcessedLayer[],
    call: Call,
  ): Promise<KnownImage | undefined> {
    if (processed.some(({ report }) => report.outcome === "analyzed")) return undefined;
    const images = new Images(this.#database, this.#store);
    try {
      const record = await images.get(account, image.digest, undefined);
      if (record.digest !== image.digest || record.fingerprint !== this.#pool.fingerprint) return undefined;
      if (record.damage !== undefined) return undefined;
      const refs: ObjectRef[] = keysOf(layers).map(layerRef);
      refs.push(manifestRef(account, image.digest));
      if (record.parentDigest !== record.digest) refs.push(indexRef(account, image.digest));
      for (const ref of refs) await readThrough(this.#store, ref, call);
      return { record, document: await images.document(record, call) };
    } catch (error) {
      if (isCode(error, "IMAGE_NOT_FOUND", "IMAGE_AMBIGUOUS") || isDamage(error)) return undefined;
      throw error;
    }
  }

  async #document(
    image: ResolvedImage,
    layers: readonly KeyedLayer[],
    processed: readonly ProcessedLayer[],
    progress: Progress,
    call: Call,
  ): Promise<AnalysisDocument> {
    const task = progress.begin("merging layers", undefined);
    const identity = {
      digest: image.digest,
      imageId: image.imageId,
      fingerprint: this.#pool.fingerprint,
      layerKeys: layers.map(({ key }) => key ?? null),
      config: JSON.parse(image.config.raw.toString()) as JsonValue,
    };
    const documents = layers.map(({ key }, position) =>
      key === undefined ? undefined : (processed[position]?.document ?? storedLayer(this.#store, key, call)),
    );
    const document = await reconcileImage(identity, documents, catalogers, this.#limits);
    task.end(`${plural(document.facts.files, "file")}, ${plural(document.packages.length, "package")}`);
    return document;
  }

  /** Stages the image's documents and makes all of it visible at once. Returns the bytes newly stored. */
  async #publish(
    account: string,
    image: ResolvedImage,
    layers: readonly KeyedLayer[],
    document: AnalysisDocument,
    known: ImageRecord | undefined,
    name: ImageName | undefined,
    call: Call,
  ): Promise<number> {
    const staged: StagedObject[] = [];
    const { digest } = image;
    const stage = async (ref: ObjectRef, bytes: Buffer) => {
      staged.push(await this.#store.stage(ref, bodyOf(bytes), call));
    };
    if (!known) {
      await stage(analysisRef(account, digest), encodeAnalysisDocument(document));
      await stage(manifestRef(account, digest), image.manifest);
    }
    if (image.index && image.index.digest !== known?.parentDigest) {
      await stage(indexRef(account, digest), image.index.bytes);
    }
    if (staged.length > 0) announce("analysis image staged", { digest });
    await this.#database.transaction(async (tx) => {
      await this.#publishRows(tx, account, image, layers, document, known, name);
      await this.#store.publish(tx, staged);
    }, call);
    announce("analysis image published", { digest: image.digest });
    return staged.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  }

  async #publishRows(
    tx: Transaction,
    account: string,
    image: ResolvedImage,
    layers: readonly KeyedLayer[],
    document: AnalysisDocument,
    known: ImageRecord | undefined,
    name: ImageName | undefined,
  ): Promise<void> {
    const keys = keysOf(layers);
    const alive = await useLayers(tx, keys);
    if (keys.some((key) => !alive.has(key))) throw new LayerGoneError();
    const { facts } = document;
    if (known && !(await holdImage(tx, account, image.digest, facts.fingerprint))) throw new ImageGoneError();
    if (!known) await writeImage(tx, imageRow(account, image, document), layers.map(layerRow));
    // An image found once through an index keeps it when it is analysed by its own digest; another index takes its place.
    else if (image.index && image.index.digest !== known.parentDigest)
      await writeParent(tx, account, image.digest, image.index.digest);
    if (name)
      await writeTag(tx, account, image.digest, name.fullTag, {
        registry: name.registry,
        repository: name.repository,
        tag: name.tag,
      });
  }

  #report(
    image: ResolvedImage,
    name: ImageName | undefined,
    { facts, packages, notes }: AnalysisDocument,
    processed: readonly ProcessedLayer[],
    imageBytesStored: number,
    wasKnown: boolean,
    begun: number,
  ): AnalysisReport {
    return {
      digest: image.digest,
      imageId: image.imageId,
      fullTag: name?.fullTag,
      platform: formatPlatform(image.config.platform),
      distribution: facts.distribution,
      layers: processed.map(({ report }) => report),
      files: facts.files,
      packages: countByType(packages),
      bytesRead: processed.reduce((sum, { report }) => sum + report.bytesRead, 0),
      bytesStored: processed.reduce((sum, { bytesStored }) => sum + bytesStored, imageBytesStored),
      notes: notes.length + facts.notesLeftOut,
      wasKnown,
      durationMs: Math.round(performance.now() - begun),
    };
  }
}

interface KnownImage {
  readonly record: ImageRecord;
  readonly document: AnalysisDocument;
}

/** Each once. */
function keysOf(layers: readonly KeyedLayer[]): string[] {
  return [...new Set(layers.flatMap(({ key }) => key ?? []))];
}

/** A layer document has been forgotten since it was used. */
class LayerGoneError extends StowageError<"OBJECT_NOT_FOUND"> {
  constructor() {
    super("OBJECT_NOT_FOUND", { bucket: "layer_data", key: "" });
  }
}

/** The image has been deleted since it was found. */
class ImageGoneError extends StowageError<"OBJECT_NOT_FOUND"> {
  constructor() {
    super("OBJECT_NOT_FOUND", { bucket: "analysis_data", key: "" });
  }
}

function bodyOf(bytes: Buffer) {
  return { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
}

function imageRow(
  account: string,
  image: ResolvedImage,
  { facts, packages }: AnalysisDocument,
): Omit<ImageRecord, "fullTags" | "analyzedAt" | "damage"> {
  const { os, architecture, variant } = image.config.platform;
  return {
    account,
    digest: image.digest,
    parentDigest: image.index?.digest ?? image.digest,
    imageId: image.imageId,
    mediaType: image.mediaType,
    os,
    architecture,
    variant,
    distro: facts.distribution?.id,
    distroVersion: facts.distribution?.version,
    files: facts.files,
    fileBytes: facts.fileBytes,
    blobBytes: blobBytesOf(image),
    packageCounts: countByType(packages),
    fingerprint: facts.fingerprint,
    layerCount: image.layers.length,
  };
}

function blobBytesOf({ layers }: ResolvedImage): number {
  return layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
}

function layerRow({ position, layer, key }: KeyedLayer): ImageLayerRecord {
  const { descriptor, diffId } = layer;
  return {
    position,
    blobDigest: descriptor.digest,
    blobBytes: descriptor.size,
    mediaType: descriptor.mediaType,
    diffId,
    layerKey: key,
  };
}

function countByType(packages: AnalysisDocument["packages"]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { type } of packages) counts[type] = (counts[type] ?? 0) + 1;
  return counts;
}
