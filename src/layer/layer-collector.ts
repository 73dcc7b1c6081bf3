import type { Limits } from "../config/index.ts";
import { ContentDigester, type KeptContents } from "./content.ts";
import type { EntryType, LayerNode } from "./entry.ts";
import type { Cataloger } from "./findings.ts";
import type { NoteCode, NoteList } from "./notes.ts";
import { baseOf, joinPath, leavesRoot, type PathKey, parentOf, parsePath, pathText } from "./path.ts";
import { bytesToText } from "./path-text.ts";
import type { PathMatcher } from "./patterns.ts";
import { RecordSorter } from "./sorter.ts";
import type { Spill } from "./spill.ts";
import type { TarEntry, TarHandler } from "./tar-reader.ts";

const typesByFlag: Readonly<Record<string, EntryType>> = {
  "0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "dir",
  "6": "fifo",
};

/** No symlink has led a record that comes from the stream. */
const unmoved = { hops: 0, targetLength: 0 } as const;

/** Turns tar entries into sort records, and keeps what catalogers want. */
export class LayerCollector implements TarHandler {
  readonly sorter: RecordSorter;
  tarEntries = 0;
  readonly #contents: KeptContents;
  readonly #wants: PathMatcher<Cataloger>;
  readonly #limits: Limits;
  readonly #notes: NoteList;
  readonly #digester = new ContentDigester();
  #file: { key: PathKey; entry: TarEntry; isKept: boolean } | undefined;

  constructor(spill: Spill, contents: KeptContents, wants: PathMatcher<Cataloger>, limits: Limits, notes: NoteList) {
    this.sorter = new RecordSorter(spill);
    this.#contents = contents;
    this.#wants = wants;
    this.#limits = limits;
    this.#notes = notes;
  }

  begin(entry: TarEntry): void {
    this.tarEntries++;
    this.#file = undefined;
    const key = parsePath(entry.name);
    const base = baseOf(key);
    const isRoot = key === "" && entry.typeflag !== "5";
    if (leavesRoot(entry.name)) this.#note("outside-root", key);
    if (key.startsWith(".wh..wh.") && key.includes("\0")) this.#note("inside-whiteout-meta", key);
    if (entry.name === "" || isRoot) this.#note("empty-name", key);
    else if (base.startsWith(".wh.")) this.#mark(key, base);
    else this.#entry(key, entry);
  }

  content(bytes: Buffer): void {
    if (!this.#file) return;
    this.#digester.update(bytes);
    if (this.#file.isKept) this.#contents.add(bytes);
  }

  finish(): void {
    if (!this.#file) return;
    const { key, entry, isKept } = this.#file;
    this.#file = undefined;
    if (isKept) this.#contents.end();
    this.#add(key, nodeOf(entry, "file", this.#digester.end()));
  }

  #mark(key: PathKey, base: string): void {
    if (base === ".wh..wh..opq") this.#record(parentOf(key), "opaque");
    else if (/^\.wh\.{1,3}$/.test(base)) this.#note("bare-whiteout", key);
    else if (base.startsWith(".wh..wh.")) this.#note("whiteout-meta", key);
    else this.#record(joinPath(parentOf(key), base.slice(4)), "whiteout");
  }

  #entry(key: PathKey, entry: TarEntry): void {
    const type = typesByFlag[entry.typeflag];
    if (type === undefined && "VMND".includes(entry.typeflag)) this.#note("ignored-type", key);
    else if (type === undefined || type === "file") {
      if (type === undefined) this.#note("unknown-type", key);
      this.#beginFile(key, entry);
    } else if (type === "hardlink") this.#hardlink(key, entry);
    else if (type === "char" && entry.deviceMajor === 0 && entry.deviceMinor === 0) {
      this.#note("device-whiteout", key);
      this.#record(key, "whiteout");
    } else this.#add(key, nodeOf(entry, type, undefined));
  }

  #beginFile(key: PathKey, entry: TarEntry): void {
    let max = 0;
    for (const { fileBytesMax } of this.#wants.match(key)) max = Math.max(max, fileBytesMax);
    const isKept =
      entry.size <= Math.min(max, this.#limits.keptFileBytesMax) &&
      max > 0 &&
      this.#contents.totalBytes + entry.size <= this.#limits.keptLayerBytesMax;
    this.#file = { key, entry, isKept };
    this.#digester.begin(entry.size);
    if (isKept) this.#contents.begin(this.tarEntries, entry.size);
  }

  #hardlink(key: PathKey, entry: TarEntry): void {
    const target = parsePath(entry.link);
    const node = { ...nodeOf(entry, "hardlink", undefined), link: target };
    if (target === key) return;
    this.#add(key, node);
    this.sorter.add({ key: target, sequence: this.tarEntries, mark: undefined, node, isRequest: true, ...unmoved });
  }

  #add(key: PathKey, node: LayerNode): void {
    this.sorter.add({ key, sequence: this.tarEntries, mark: undefined, node, isRequest: false, ...unmoved });
  }

  #record(key: PathKey, mark: "whiteout" | "opaque"): void {
    this.sorter.add({ key, sequence: this.tarEntries, mark, node: undefined, isRequest: false, ...unmoved });
  }

  #note(code: NoteCode, key: PathKey): void {
    this.#notes.add(code, pathText(key));
  }
}

/** A second pass for files whose content the first could not know to keep. */
export class MissingContents implements TarHandler {
  readonly #contents: KeptContents;
  readonly #missing: ReadonlySet<number>;
  #sequence = 0;

  constructor(contents: KeptContents, missing: ReadonlySet<number>) {
    this.#contents = contents;
    this.#missing = missing;
  }

  begin(entry: TarEntry): void {
    this.#sequence++;
    if (this.#missing.has(this.#sequence)) this.#contents.begin(this.#sequence, entry.size);
  }

  content(bytes: Buffer): void {
    if (this.#missing.has(this.#sequence)) this.#contents.add(bytes);
  }

  finish(): void {
    if (this.#missing.has(this.#sequence)) this.#contents.end();
  }
}

function nodeOf(entry: TarEntry, type: EntryType, digests: string | undefined): LayerNode {
  const isDevice = type === "char" || type === "block";
  return {
    type,
    // Linux knows no other mode of a symlink, whatever the entry says.
    mode: type === "symlink" ? 0o777 : entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtime: entry.mtime,
    size: type === "file" ? entry.size : 0,
    digests,
    link: type === "symlink" ? entry.link : undefined,
    deviceMajor: isDevice ? entry.deviceMajor : 0,
    deviceMinor: isDevice ? entry.deviceMinor : 0,
    xattrs: relevantXattrs(entry.xattrs),
  };
}

/** Attributes that change what a file may do, or that users put there; an overlay's own marks are none. */
function relevantXattrs(xattrs: ReadonlyMap<string, string>): Record<string, string> | undefined {
  let relevant: Record<string, string> | undefined;
  for (const [name, value] of xattrs) {
    if (!name.startsWith("security.") && !(name.startsWith("user.") && !name.startsWith("user.overlay."))) continue;
    relevant ??= Object.create(null) as Record<string, string>;
    relevant[bytesToText(name)] = value;
  }
  return relevant;
}
