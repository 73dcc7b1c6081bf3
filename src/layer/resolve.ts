import type { Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { Ancestry } from "./ancestry.ts";
import { type Attributes, changesAttributes, withAttributes } from "./attributes.ts";
import { DanglingTargets } from "./dangling.ts";
import type { LayerEntry, LayerNode } from "./entry.ts";
import type { NoteList } from "./notes.ts";
import { isBelow, joinPath, linkTarget, type PathKey, pathText } from "./path.ts";
import { compareRecords, mergeSorted, RecordSorter, type SortRecord } from "./sorter.ts";
import type { Spill } from "./spill.ts";

/** What a layer says of one path after everything inside the layer is resolved, and whose content it has. */
export interface ResolvedEntry extends LayerEntry {
  /** Place in the tar stream of the entry whose bytes this file has. */
  readonly contentSequence: number;
}

const hopsMax = 40;

/**
 * Resolves what a layer can decide on its own: symlinked parents are followed, of repeated names the last counts, hard links get their
 * target's content as it was when the link came (analysis.md B22, B28, B34–B39, B46). Yields one entry for each path, in key order.
 *
 * A hard link stands in the sorter twice: as a node under its own name, and as a request under its target's, with the same sequence; so targets
 * follow symlinked parents as names do.
 */
export function* resolveLayer(
  sorter: RecordSorter,
  spill: Spill,
  limits: Limits,
  notes: NoteList,
  layer: string,
): Generator<ResolvedEntry> {
  const records = new MovableRecords(sorter, spill);
  const links = settle(records, limits, notes, layer);
  yield* decide(records, links, limits, notes, layer);
}

/**
 * A layer's records, of which some move to other keys. What is written is what moves, not what stays: a layer of millions of entries must not be
 * written again for each hop of a chain of links.
 */
class MovableRecords {
  readonly #original: RecordSorter;
  readonly #moved: RecordSorter;
  /** The same records as they were before they moved. */
  readonly #left: RecordSorter;

  constructor(original: RecordSorter, spill: Spill) {
    this.#original = original;
    this.#moved = new RecordSorter(spill);
    this.#left = new RecordSorter(spill);
  }

  /** Counts for the next reading, not for one that is under way. */
  move(from: SortRecord, to: SortRecord | undefined): void {
    this.#left.add(from);
    if (to) this.#moved.add(to);
  }

  /** Whether some have moved. */
  get haveMoved(): boolean {
    return !this.#left.isEmpty;
  }

  *records(): Generator<SortRecord> {
    if (!this.haveMoved) {
      yield* this.#original.records();
      return;
    }
    const left = this.#left.records();
    let gone = left.next();
    for (const record of mergeSorted([this.#original.records(), this.#moved.records()])) {
      if (!gone.done && compareRecords(gone.value, record) === 0) gone = left.next();
      else yield record;
    }
  }
}

/**
 * Moves every record whose parent is a symlink at its moment in the stream to where the link leads, until none is left, and resolves the hard
 * links of what then stands. What lies below a file is never there, so nothing leads through it.
 *
 * One image is resolved otherwise than an unpacker would: where an entry takes a symlink's place and came through a symlink itself, entries after it
 * still follow the old one. Such a name stands twice in the layer, and is noted.
 */
function settle(records: MovableRecords, limits: Limits, notes: NoteList, layer: string): Links {
  for (;;) {
    const links = new HardlinkResolver(limits, layer);
    const ancestry = new Ancestry();
    let isSettled = true;
    for (const record of records.records()) {
      ancestry.enter(record.key);
      const above = ancestry.above(record);
      if (above?.node?.type === "symlink") {
        isSettled = false;
        const isLoop = record.hops >= hopsMax;
        // A hard link's request is no entry: the link itself is noted when it has no target.
        if (isLoop && !record.isRequest) notes.add("symlink-loop", pathText(record.key));
        records.move(record, isLoop ? undefined : redirect(record, above, limits, layer));
      } else if (record.isRequest) links.add(record, ancestry.present(record));
      else if (record.node && !above) ancestry.add(record);
    }
    if (isSettled) return links.resolve();
  }
}

/** Links that lead through themselves make a path longer with each hop: the limit of paths holds for these too. */
function redirect(record: SortRecord, link: SortRecord, limits: Limits, layer: string): SortRecord {
  const target = linkTarget(link.key, link.node?.link ?? "");
  const key = joinPath(target, record.key.slice(link.key.length + 1));
  if (key.length > limits.pathBytesMax) {
    const found = key.length;
    throw new StowageError("LIMIT_EXCEEDED", { limit: "pathBytesMax", max: limits.pathBytesMax, found, where: layer });
  }
  // Where a link stands above the directory that the one before led to, that directory has moved along.
  const targetLength = target.length + Math.max(0, record.targetLength - link.key.length);
  return { ...record, key, hops: record.hops + 1, targetLength };
}

/** Where a hard link's content is: in this layer, under `key` when the link came, or under a key that only lower layers can answer. */
type LinkTarget =
  | { readonly node: LayerNode; readonly contentSequence: number; readonly key: PathKey }
  | { readonly lower: PathKey }
  | "directory";

interface Links {
  /** By the link's sequence; none for a link that leads in a circle. */
  readonly targets: ReadonlyMap<number, LinkTarget>;
  /** What later link entries made of a file's attributes, by the file's content sequence, or its key in lower layers: all names of a file share them. */
  readonly attributes: ReadonlyMap<number | PathKey, Attributes>;
}

class HardlinkResolver {
  readonly #limits: Limits;
  readonly #layer: string;
  readonly #targets = new Map<number, LinkTarget>();
  readonly #chained: { sequence: number; via: number }[] = [];
  readonly #linkNodes = new Map<number, LayerNode>();

  constructor(limits: Limits, layer: string) {
    this.#limits = limits;
    this.#layer = layer;
  }

  /** A link's request for what bears its target's key at that moment. */
  add({ key, node, sequence }: SortRecord, found: SortRecord | undefined): void {
    if (this.#linkNodes.size >= this.#limits.layerLinksMax) {
      const max = this.#limits.layerLinksMax;
      throw new StowageError("LIMIT_EXCEEDED", { limit: "layerLinksMax", max, where: this.#layer });
    }
    if (node) this.#linkNodes.set(sequence, node);
    if (found?.node === undefined) this.#targets.set(sequence, { lower: key });
    else if (found.node.type === "hardlink") this.#chained.push({ sequence, via: found.sequence });
    else if (found.node.type === "dir") this.#targets.set(sequence, "directory");
    else this.#targets.set(sequence, { node: found.node, contentSequence: found.sequence, key });
  }

  resolve(): Links {
    const targets = this.#targets;
    // A link's target came before it, so in stream order every chain is resolved when it is reached.
    this.#chained.sort((a, b) => a.sequence - b.sequence);
    for (const { sequence, via } of this.#chained) {
      const target = targets.get(via);
      if (target) targets.set(sequence, target);
    }

    const attributes = new Map<number | PathKey, Attributes>();
    for (const [sequence, node] of [...this.#linkNodes].sort(([a], [b]) => a - b)) {
      const target = targets.get(sequence);
      if (target === undefined || target === "directory") continue;
      if ("lower" in target) attributes.set(target.lower, node);
      else if (target.node.type !== "symlink") attributes.set(target.contentSequence, node);
    }
    return { targets, attributes };
  }
}

/** One entry for each path: the last version that was not taken away by something above it. */
function* decide(
  records: MovableRecords,
  links: Links,
  limits: Limits,
  notes: NoteList,
  layer: string,
): Generator<ResolvedEntry> {
  const ancestry = new Ancestry();
  const dangling = records.haveMoved ? new DanglingTargets(notes) : undefined;
  let emptied: PathKey | undefined;
  for (const group of groupByKey(records.records(), limits, layer)) {
    const key = (group[0] as SortRecord).key;
    ancestry.enter(key);
    const versions: SortRecord[] = [];
    let isWhiteout = false;
    let isOpaque = false;
    let whiteoutSequence = -1;
    for (const record of group) {
      if (record.isRequest) continue;
      dangling?.see(record);
      if (record.mark === "whiteout") {
        isWhiteout = true;
        whiteoutSequence = record.sequence;
      } else if (record.mark === "opaque") isOpaque = true;
      else if (ancestry.above(record)) notes.add("below-file", pathText(key));
      else if (!ancestry.isReplacedLater(record)) versions.push(record);
    }
    const entry = finalVersion(versions, links, notes);
    if (versions.length > 1) notes.add("name-twice", pathText(key));
    if (entry && isWhiteout) {
      if ((versions[0] as SortRecord).sequence < whiteoutSequence) notes.add("whiteout-after-entry", pathText(key));
      if (entry.node?.type === "dir") notes.add("whiteout-and-directory", pathText(key));
    }
    for (const version of versions) ancestry.add(version);
    if (entry || isWhiteout || isOpaque) {
      // What lies below a name comes right after it.
      if (emptied !== undefined && isBelow(key, emptied)) notes.add("whiteout-and-content", pathText(emptied));
      emptied = isWhiteout && !entry ? key : undefined;
      yield { key, isWhiteout, isOpaque, node: entry?.node, contentSequence: entry?.contentSequence ?? -1 };
    }
  }
  dangling?.finish();
}

function finalVersion(
  versions: readonly SortRecord[],
  links: Links,
  notes: NoteList,
): { readonly node: LayerNode; readonly contentSequence: number } | undefined {
  const last = versions.at(-1);
  if (!last?.node) return undefined;
  if (last.node.type !== "hardlink") {
    const changed = links.attributes.get(last.sequence);
    return { node: changed ? withAttributes(last.node, changed) : last.node, contentSequence: last.sequence };
  }
  const target = links.targets.get(last.sequence);
  if (target === undefined || target === "directory") {
    notes.add(target ? "link-target-directory" : "symlink-loop", pathText(last.key));
    return undefined;
  }
  if ("lower" in target) {
    const shared = withAttributes(last.node, links.attributes.get(target.lower) ?? last.node);
    return { node: { ...shared, link: target.lower }, contentSequence: -1 };
  }
  if (target.node.type === "symlink") return target;
  const attributes = links.attributes.get(target.contentSequence) ?? last.node;
  if (changesAttributes(target.node, attributes)) notes.add("link-changes-attributes", pathText(last.key));
  return {
    node: { ...withAttributes(target.node, attributes), link: target.key },
    contentSequence: target.contentSequence,
  };
}

function* groupByKey(records: Iterable<SortRecord>, limits: Limits, layer: string): Generator<SortRecord[]> {
  let group: SortRecord[] = [];
  for (const record of records) {
    if (group.length > 0 && (group[0] as SortRecord).key !== record.key) {
      yield group;
      group = [];
    }
    group.push(record);
    if (group.length > limits.nameRepeatsMax) {
      throw new StowageError("LIMIT_EXCEEDED", { limit: "nameRepeatsMax", max: limits.nameRepeatsMax, where: layer });
    }
  }
  if (group.length > 0) yield group;
}
