import { changesAttributes, withAttributes } from "./attributes.ts";
import { type LayerDocument, LayerReading, type MergeLayer } from "./document.ts";
import type { LayerEntry, LayerNode, MergedEntry } from "./entry.ts";
import type { NoteCode, NoteList } from "./notes.ts";
import { isBelow, joinPath, linkTarget, type PathKey, pathText } from "./path.ts";

/** Links of one layer that look for their target under the same key. */
type Wanted = Map<PathKey, { readonly key: PathKey; readonly node: LayerNode }[]>;

type Merge = (layers: readonly MergeLayer[]) => AsyncIterable<MergedEntry[]>;

/** Linux follows no longer path. */
const followedBytesMax = 4096;
/** Each costs a merge of the layers below. */
const hopsMax = 8;
const hopsOfImageMax = 256;

/**
 * Hard links to files of lower layers. For each layer that has some, the layers below are merged and the targets picked out; what was found
 * stands in for the link from then on. A target below a symlink of the layers below is looked for again where that leads, as unpackers that
 * merge trees do. The link entry's attributes count for the target's name too, as all names of a file share them (B39).
 */
export class CrossLayerLinks {
  readonly #merge: Merge;
  readonly #notes: NoteList;
  readonly #nodes = new Map<number, Map<PathKey, LayerNode>>();
  readonly #attributes = new Map<PathKey, { fileLayer: number; link: LayerNode }[]>();
  #hopsLeft = hopsOfImageMax;

  /** @param merge the squashed view of lower layers, their links resolved by this */
  constructor(merge: Merge, notes: NoteList) {
    this.#merge = merge;
    this.#notes = notes;
  }

  async resolve(layers: readonly MergeLayer[], index: number): Promise<void> {
    const reading = layers[index];
    if (!reading) return;
    const { document } = reading;
    let wanted: Wanted = new Map();
    const whitedOut = new Set<PathKey>();
    await eachEntry(document, ({ key, node, isWhiteout }) => {
      if (isWhiteout) whitedOut.add(key);
      if (node?.type === "hardlink") want(wanted, node.link as PathKey, [{ key, node }]);
    });
    this.#nodes.set(index, new Map());
    for (let hops = 0; wanted.size > 0; hops++) {
      if (hops > 0) {
        if (hops > hopsMax || this.#hopsLeft-- === 0) {
          this.#noteAll(wanted, "link-target-too-far");
          return;
        }
        await this.#findInOwnLayer(document, index, wanted);
      }
      const moved = await this.#findBelow(layers, index, wanted, whitedOut);
      if (hops === 0 && wanted.size > 0) await this.#noteLater(document, wanted);
      this.#noteAll(wanted, "link-target-missing");
      wanted = moved;
    }
  }

  /** What is found leaves `wanted`. Returns what a symlink leads elsewhere. */
  async #findBelow(
    layers: readonly MergeLayer[],
    index: number,
    wanted: Wanted,
    whitedOut: ReadonlySet<PathKey>,
  ): Promise<Wanted> {
    const moved: Wanted = new Map();
    const keys = [...wanted.keys()].sort();
    let at = 0;
    await using lower = new AsyncDisposableStack();
    const below: MergeLayer[] = [];
    // A reading serves once, and these still have to be merged.
    for (const layer of layers.slice(0, index)) below.push(layer && lower.use(await LayerReading.open(layer.document)));
    for await (const entries of this.#merge(below)) {
      for (const found of entries) {
        while (at < keys.length && (keys[at] as PathKey) < found.key) at++;
        if (keys[at] === found.key) {
          const code = whitedOut.has(found.key) ? "link-target-whited-out" : "link-to-lower-layer";
          for (const link of wanted.get(found.key) ?? []) this.#connect(index, link, found, code);
          wanted.delete(found.key);
          at++;
        }
        if (found.node.type === "symlink") {
          for (; at < keys.length && isBelow(keys[at] as PathKey, found.key); at++) {
            this.#move(keys[at] as PathKey, found, wanted, moved);
          }
        }
        if (at === keys.length) return moved;
      }
    }
    return moved;
  }

  #move(key: PathKey, link: MergedEntry, wanted: Wanted, moved: Wanted): void {
    const links = wanted.get(key) ?? [];
    wanted.delete(key);
    const target = joinPath(linkTarget(link.key, link.node.link ?? ""), key.slice(link.key.length + 1));
    if (target.length <= followedBytesMax) want(moved, target, links);
    else for (const { key } of links) this.#notes.add("link-target-too-far", pathText(key));
  }

  /** A symlink of a lower layer may lead to what the links' own layer holds. */
  async #findInOwnLayer(document: LayerDocument, index: number, wanted: Wanted): Promise<void> {
    await eachEntry(document, ({ key, node }) => {
      const links = wanted.get(key);
      if (!links || !node || node.type === "hardlink") return;
      const found = { key, node, layer: index };
      for (const link of links) this.#connect(index, link, found, "link-through-lower-symlink");
      wanted.delete(key);
    });
  }

  async #noteLater(document: LayerDocument, wanted: Wanted): Promise<void> {
    await eachEntry(document, ({ key, node }) => {
      if (!node) return;
      for (const link of wanted.get(key) ?? []) this.#notes.add("link-target-later", pathText(link.key));
      wanted.delete(key);
    });
  }

  #noteAll(wanted: Wanted, code: NoteCode): void {
    for (const links of wanted.values()) for (const { key } of links) this.#notes.add(code, pathText(key));
  }

  #connect(
    index: number,
    { key, node: link }: { readonly key: PathKey; readonly node: LayerNode },
    { key: target, node, layer: fileLayer }: Omit<MergedEntry, "isImplied">,
    code: NoteCode,
  ): void {
    this.#notes.add(node.type === "dir" ? "link-target-directory" : code, pathText(key));
    if (node.type === "dir") return;
    const nodes = this.#nodes.get(index) as Map<PathKey, LayerNode>;
    if (node.type === "symlink") {
      nodes.set(key, node);
      return;
    }
    if (changesAttributes(node, link)) this.#notes.add("link-changes-attributes", pathText(key));
    nodes.set(key, { ...withAttributes(node, link), link: node.link ?? target });
    const list = this.#attributes.get(target) ?? [];
    list.push({ fileLayer, link });
    this.#attributes.set(target, list);
  }

  /** `node` itself, or what a hard link to a lower layer has become; undefined when its target is missing. */
  nodeOf(layer: number, key: PathKey, node: LayerNode | undefined): LayerNode | undefined {
    return node?.type === "hardlink" ? this.#nodes.get(layer)?.get(key) : node;
  }

  /** A visible file with the attributes that links of higher layers gave it. */
  attributed(key: PathKey, { node, layer }: { node: LayerNode; layer: number }): LayerNode {
    const latest = this.#attributes.get(key)?.findLast(({ fileLayer }) => fileLayer === layer);
    return latest ? withAttributes(node, latest.link) : node;
  }
}

function want(wanted: Wanted, target: PathKey, links: Parameters<Wanted["set"]>[1]): void {
  const there = wanted.get(target);
  if (there) for (const link of links) there.push(link);
  else wanted.set(target, links);
}

/** Reads a layer's entries anew. */
async function eachEntry(document: LayerDocument, visit: (entry: LayerEntry) => void): Promise<void> {
  await using reading = await LayerReading.open(document);
  for await (const entries of reading.entries()) for (const entry of entries) visit(entry);
}
