import { CrossLayerLinks } from "./cross-layer-links.ts";
import type { MergeLayer } from "./document.ts";
import type { LayerEntry, LayerNode, MergedEntry } from "./entry.ts";
import { NoteList } from "./notes.ts";
import { isBelow, type PathKey, pathText } from "./path.ts";

/**
 * The squashed view of an image, lowest layer first in `layers`, as batches in key order. Memory is bounded by the number of layers, the depth of
 * the tree, and the hard links that cross layers.
 *
 * Layers are merged by path alone: a layer's whiteouts and opaque marks hide what lower layers have, whatever their order within the layer; a
 * directory that something lies in hides a symlink or file of a lower layer (OCI image-spec, layer.md; where it is silent, the overlay drivers;
 * analysis.md B21–B48).
 *
 * The readings are read to their end and closed.
 */
export async function* mergeLayers(layers: readonly MergeLayer[], notes: NoteList): AsyncGenerator<MergedEntry[]> {
  const links = new CrossLayerLinks((below) => merge(below, links, new NoteList({ notesMax: 0 })), notes);
  try {
    for (const [index, layer] of layers.entries()) {
      if (layer && layer.facts.lowerLinks > 0) await links.resolve(layers, index);
    }
    yield* merge(layers, links, notes);
  } finally {
    await closeAll(layers);
  }
}

async function closeAll(layers: readonly MergeLayer[]): Promise<void> {
  await Promise.all(layers.map((layer) => layer?.[Symbol.asyncDispose]()));
}

interface Cursor {
  readonly layer: number;
  readonly batches: AsyncIterator<LayerEntry[]>;
  batch: LayerEntry[];
  at: number;
  isEnded: boolean;
}

async function* merge(
  layers: readonly MergeLayer[],
  links: CrossLayerLinks,
  notes: NoteList,
): AsyncGenerator<MergedEntry[]> {
  const cursors: Cursor[] = [];
  for (const [layer, reading] of layers.entries()) {
    if (reading) cursors.push({ layer, batches: reading.entries(), batch: [], at: 0, isEnded: false });
  }
  const tree = new TreeMerge(links, notes);
  for (;;) {
    for (const cursor of cursors) {
      while (!cursor.isEnded && cursor.at >= cursor.batch.length) {
        const { value, done } = await cursor.batches.next();
        if (done) cursor.isEnded = true;
        else [cursor.batch, cursor.at] = [value, 0];
      }
    }
    const active = cursors.filter(({ isEnded }) => !isEnded);
    if (active.length === 0) break;
    const merged = tree.advance(active);
    if (merged.length > 0) yield merged;
  }
  const rest = tree.finish();
  if (rest.length > 0) yield rest;
}

/** What the layers say of one path, collected before it is known which of them lie in it. */
interface Place {
  readonly key: PathKey;
  /** Layers below this one are hidden here by something above in the tree. */
  readonly floor: number;
  /** Entries of this path, by layer, lowest first. */
  readonly entries: { readonly layer: number; readonly entry: LayerEntry }[];
}

interface Directory {
  readonly key: PathKey;
  /** Layers below this one have nothing to say in this directory. */
  readonly floor: number;
}

/**
 * Walks the union of all layers' paths in key order. A path is decided when the next path is known, because a directory that no entry names
 * shows only by what lies below it; that is found by looking at the cursors.
 */
class TreeMerge {
  readonly #links: CrossLayerLinks;
  readonly #notes: NoteList;
  readonly #directories: Directory[] = [{ key: "" as PathKey, floor: 0 }];
  #output: MergedEntry[] = [];
  #pending: Place | undefined;

  constructor(links: CrossLayerLinks, notes: NoteList) {
    this.#links = links;
    this.#notes = notes;
  }

  /** Goes on until some cursor's batch is used up; every cursor has an entry when it is called. */
  advance(cursors: readonly Cursor[]): MergedEntry[] {
    for (;;) {
      const least = leastKey(cursors);
      if (this.#pending) {
        this.#decide(this.#pending, layersBelow(this.#pending.key, cursors));
        this.#pending = undefined;
      }
      this.#enter(least, cursors);
      if (this.#pending === undefined) this.#pending = this.#take(least, cursors);
      if (cursors.some(({ at, batch }) => at >= batch.length)) return this.#flush();
    }
  }

  finish(): MergedEntry[] {
    if (this.#pending) this.#decide(this.#pending, none);
    this.#pending = undefined;
    return this.#flush();
  }

  #flush(): MergedEntry[] {
    const output = this.#output;
    this.#output = [];
    return output;
  }

  /** Leaves directories that are done, and decides the unnamed ones on the way to `key`. */
  #enter(key: PathKey, cursors: readonly Cursor[]): void {
    while (key !== "" && !isBelow(key, this.#top.key)) this.#directories.pop();
    for (;;) {
      const { key: top, floor } = this.#top;
      const end = key.indexOf("\0", top === "" ? 0 : top.length + 1);
      if (end < 0) return;
      const parent = key.slice(0, end) as PathKey;
      this.#decide({ key: parent, floor, entries: [] }, layersBelow(parent, cursors));
    }
  }

  get #top(): Directory {
    return this.#directories.at(-1) as Directory;
  }

  #take(key: PathKey, cursors: readonly Cursor[]): Place {
    const entries: Place["entries"] = [];
    for (const cursor of cursors) {
      const entry = cursor.batch[cursor.at] as LayerEntry;
      if (entry.key !== key) continue;
      entries.push({ layer: cursor.layer, entry });
      cursor.at++;
    }
    return { key, floor: key === "" ? 0 : this.#top.floor, entries };
  }

  /**
   * Decides a path, top layer first, and enters it, so that what lies below knows which layers count there. `below` are the layers that have
   * something below it, lowest first.
   */
  #decide({ key, floor, entries }: Place, below: readonly number[]): void {
    let nextEntry = entries.length - 1;
    let nextBelow = below.length - 1;
    let childFloor = floor;
    let directory: { node: LayerNode | undefined; layer: number } | undefined;
    let other: { node: LayerNode; layer: number } | undefined;
    for (;;) {
      const layer = Math.max(entries[nextEntry]?.layer ?? -1, below[nextBelow] ?? -1);
      if (layer < floor || layer < 0) break;
      const entry = entries[nextEntry]?.layer === layer ? entries[nextEntry--]?.entry : undefined;
      const hasBelow = below[nextBelow] === layer;
      if (hasBelow) nextBelow--;
      const node = this.#links.nodeOf(layer, key, entry?.node);
      if (node && node.type !== "dir") {
        if (!directory) other = { node, layer };
        else if (directory.node === undefined) this.#noteHidden(key, node);
        childFloor = Math.max(childFloor, layer + 1);
        break;
      }
      if (node || hasBelow || entry?.isOpaque) {
        directory ??= { node: undefined, layer };
        if (node && !directory.node) {
          const isNamed = directory.layer === layer;
          if (!isNamed && key !== "" && !isLikeImplied(node)) this.#notes.add("directory-not-named", pathText(key));
          directory = { node, layer };
        }
      }
      if (entry?.isOpaque) childFloor = Math.max(childFloor, layer);
      if (entry?.isWhiteout) {
        childFloor = Math.max(childFloor, layer);
        break;
      }
    }
    if (key === "") {
      // The root itself is no entry of the view; its marks count.
      this.#directories[0] = { key, floor: childFloor };
      return;
    }
    if (other)
      this.#output.push({ key, node: this.#links.attributed(key, other), layer: other.layer, isImplied: false });
    else if (directory?.node)
      this.#output.push({ key, node: directory.node, layer: directory.layer, isImplied: false });
    else if (directory) this.#output.push({ key, node: impliedDirectory, layer: directory.layer, isImplied: true });
    this.#directories.push({ key, floor: other || !directory ? Number.POSITIVE_INFINITY : childFloor });
  }

  #noteHidden(key: PathKey, node: LayerNode): void {
    this.#notes.add(node.type === "symlink" ? "directory-hides-symlink" : "directory-replaces-file", pathText(key));
  }
}

const none: readonly number[] = [];

/** Layers that have something below `key`, lowest first; nothing is allocated for the many paths that have nothing below them. */
function layersBelow(key: PathKey, cursors: readonly Cursor[]): readonly number[] {
  let layers: number[] | undefined;
  for (const { layer, batch, at } of cursors) {
    if (!isBelow((batch[at] as LayerEntry).key, key)) continue;
    layers ??= [];
    layers.push(layer);
  }
  return layers ?? none;
}

const impliedDirectory: LayerNode = {
  type: "dir",
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  size: 0,
  digests: undefined,
  link: undefined,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: undefined,
};

function isLikeImplied({ mode, uid, gid }: LayerNode): boolean {
  return mode === impliedDirectory.mode && uid === impliedDirectory.uid && gid === impliedDirectory.gid;
}

function leastKey(cursors: readonly Cursor[]): PathKey {
  let least: PathKey | undefined;
  for (const { batch, at } of cursors) {
    const { key } = batch[at] as LayerEntry;
    if (least === undefined || key < least) least = key;
  }
  return least as PathKey;
}
