import type { Readable } from "node:stream";
import type { Database, Transaction } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import {
  type LayerDocument,
  LayerReading,
  type MergedEntry,
  type MergeLayer,
  mergeLayers,
  NoteList,
  type OwnedFile,
  type Package,
  parseLines,
  readOwnedFiles,
} from "../layer/index.ts";
import type { ObjectRef, ObjectStore } from "../objects/index.ts";
import type { Call } from "../runtime/index.ts";
import { type AnalysisDocument, readAnalysisDocument } from "./document.ts";
import { findByDigest, findByTag, type ImageLayerRecord, type ImageRecord, layersOf, removeImage } from "./rows.ts";

/** Objects that belong to no account: layer documents. */
const systemAccount = "anchore-system";

/** Where an image's documents lie. The buckets' names are those that users know. */
export const analysisRef = (account: string, digest: string): ObjectRef => ({
  account,
  bucket: "analysis_data",
  key: digest,
});
export const manifestRef = (account: string, digest: string): ObjectRef => ({
  account,
  bucket: "manifest_data",
  key: digest,
});
export const indexRef = (account: string, digest: string): ObjectRef => ({
  account,
  bucket: "parent_manifest_data",
  key: digest,
});
export const layerRef = (layerKey: string): ObjectRef => ({
  account: systemAccount,
  bucket: "layer_data",
  key: layerKey,
});

/** Whom a document belongs to: a layer, or an image. */
export type DocumentOwner =
  | { readonly kind: "layer"; readonly layerKey: string }
  | { readonly kind: "image"; readonly account: string; readonly digest: string };

/** The inverse of the functions above; nothing for a bucket of another kind. */
export function ownerOf({ account, bucket, key }: ObjectRef): DocumentOwner | undefined {
  if (bucket === layerRef(key).bucket) return { kind: "layer", layerKey: key };
  const isOfImage = [analysisRef, manifestRef, indexRef].some((refOf) => refOf(account, key).bucket === bucket);
  return isOfImage ? { kind: "image", account, digest: key } : undefined;
}

function ownDocuments({ account, digest }: ImageRecord): readonly ObjectRef[] {
  return [analysisRef(account, digest), manifestRef(account, digest), indexRef(account, digest)];
}

/** A layer document in the object store. */
export function storedLayer(store: ObjectStore, layerKey: string, call: Call): LayerDocument {
  return {
    name: `layer document ${layerKey}`,
    open: async () => (await store.get(layerRef(layerKey), call)).body as AsyncIterable<Buffer>,
  };
}

/** Reads what is known of images. */
export class Images {
  readonly #database: Database;
  readonly #store: ObjectStore;

  constructor(database: Database, store: ObjectStore) {
    this.#database = database;
    this.#store = store;
  }

  /**
   * The image that `text` names: its digest, the digest of an index or configuration (with or without `sha256:`), or a full tag.
   * @throws StowageError `IMAGE_NOT_FOUND`, `IMAGE_AMBIGUOUS`
   */
  async get(account: string, text: string, fullTag: string | undefined): Promise<ImageRecord> {
    const digest = /^[0-9a-f]{64}$/.test(text) ? `sha256:${text}` : text;
    if (/^[a-z0-9]+:[0-9a-f]{32,}$/.test(digest)) {
      const found = await findByDigest(this.#database.sql, account, digest);
      const exact = found.find((image) => image.digest === digest) ?? (found.length === 1 ? found[0] : undefined);
      if (exact) return exact;
      if (found.length > 1) {
        throw new StowageError("IMAGE_AMBIGUOUS", { image: text, candidates: found.map((image) => image.digest) });
      }
    } else if (fullTag !== undefined) {
      const found = await findByTag(this.#database.sql, account, fullTag);
      if (found) return found;
    }
    throw new StowageError("IMAGE_NOT_FOUND", { image: text }, { hint: "see what there is with: stowage image list" });
  }

  layersOf(image: ImageRecord): Promise<readonly ImageLayerRecord[]> {
    return layersOf(this.#database.sql, image.account, image.digest);
  }

  async document(image: ImageRecord, call: Call): Promise<AnalysisDocument> {
    const { body } = await this.#store.get(analysisRef(image.account, image.digest), call);
    return readAnalysisDocument(body as Readable, `analysis of ${image.digest}`);
  }

  /** The squashed view in key order, from the layer documents. */
  async *files(image: ImageRecord, call: Call): AsyncGenerator<MergedEntry> {
    await using opened = new AsyncDisposableStack();
    const layers: MergeLayer[] = [];
    for (const document of await this.#documents(image, call)) {
      layers.push(document && opened.use(await LayerReading.open(document)));
    }
    for await (const batch of mergeLayers(layers, new NoteList({ notesMax: 0 }))) yield* batch;
  }

  /** File lists of packages. They are read once, when the first is asked for, and held in their stored form. */
  async ownedFiles(
    image: ImageRecord,
    packages: readonly Package[],
    call: Call,
  ): Promise<(record: Package) => readonly OwnedFile[]> {
    const wanted = new Map<number, Set<number>>();
    for (const { owned } of packages) {
      for (const { layer, ordinal } of owned) {
        const ordinals = wanted.get(layer) ?? new Set();
        wanted.set(layer, ordinals.add(ordinal));
      }
    }
    const documents = await this.#documents(image, call);
    const lists = new Map<string, Buffer>();
    for (const [layer, ordinals] of wanted) {
      const document = documents[layer];
      if (!document) continue;
      for await (const { ordinal, files } of readOwnedFiles(document, ordinals)) {
        lists.set(`${layer}/${ordinal}`, Buffer.from(files.map((file) => `${JSON.stringify(file)}\n`).join("")));
      }
    }
    return (record) => {
      const byPath = new Map<string, OwnedFile>();
      for (const { layer, ordinal } of record.owned) {
        for (const file of parseLines<OwnedFile>(lists.get(`${layer}/${ordinal}`) ?? Buffer.alloc(0))) {
          const known = byPath.get(file.path);
          byPath.set(file.path, known ? { ...known, ...file } : file);
        }
      }
      return [...byPath.values()];
    };
  }

  /** Stored bytes of the image's own documents; shared layer documents don't count. */
  async storedBytes(image: ImageRecord, call: Call): Promise<number> {
    let bytes = 0;
    for (const ref of ownDocuments(image)) bytes += (await this.#store.find(ref, call))?.storedBytes ?? 0;
    return bytes;
  }

  /** Removes an image in the caller's transaction, and retires its own documents; false when it is not there any more. */
  async remove(tx: Transaction, image: ImageRecord): Promise<boolean> {
    if (!(await removeImage(tx, image.account, image.digest))) return false;
    for (const ref of ownDocuments(image)) await this.#store.retire(tx, ref);
    return true;
  }

  async #documents(image: ImageRecord, call: Call): Promise<readonly (LayerDocument | undefined)[]> {
    const layers = await this.layersOf(image);
    return layers.map(({ layerKey }) =>
      layerKey === undefined ? undefined : storedLayer(this.#store, layerKey, call),
    );
  }
}
