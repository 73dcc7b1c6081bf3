import type { Limits } from "../config/index.ts";
import { ContentDigester, type KeptContents } from "./content.ts";
import type { EntryType, LayerNode } from "./entry.ts";
import type { Cataloger } from "./findings.ts";
import type { NoteCode, NoteList } from "./notes.ts";
import { baseOf, joinPath, leavesRoot, type PathKey, parentOf, parsePath, pathText } from "./path.ts";
import { bytesToText } from "./path-text.ts";
import type { PathMatcher } from "./patterns.ts";
import { RecordSorter, type SortRecord } from "./sorter.ts";
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

/** A file all of whose bytes have come. */
interface GatheredFile {
  readonly key: PathKey;
  readonly sequence: number;
  readonly entry: TarEntry;
}

/** Few enough that they are no burden to the collector, enough to fill all lanes many times. */
const waitingMax = 512;

/** Turns tar entries into sort records, and keeps what catalogers want. */
export class LayerCollector implements TarHandler, Disposable {
  readonly sorter: RecordSorter;
  tarEntries = 0;
  readonly #contents: KeptContents;
  readonly #wants: PathMatcher<Cataloger>;
  readonly #limits: Limits;
  readonly #notes: NoteList;
  readonly #digester = new ContentDigester();
  #file: (GatheredFile & { readonly isKept: boolean }) | undefined;
  /** What has come since the first file whose digests are still to be made: records go on in their order, which is nearly that of a sorter. */
  #waiting: (SortRecord | GatheredFile)[] = [];

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
    const { isKept, ...file } = this.#file;
    this.#file = undefined;
    if (isKept) this.#contents.end();
    const digests = this.#digester.end();
    if (digests === undefined) this.#wait(file);
    else this.#add(file.key, nodeOf(file.entry, "file", digests));
  }

  [Symbol.dispose](): void {
    this.#digester[Symbol.dispose]();
  }

  /** Hands on what waits: before the sorter is read, and whenever there is no room for more. */
  settle(): void {
    const digests = this.#digester.settle()[Symbol.iterator]();
    for (const each of this.#waiting) {
      if ("entry" in each) {
        const { key, sequence, entry } = each;
        this.sorter.add(recordOf(key, sequence, nodeOf(entry, "file", digests.next().value)));
      } else this.sorter.add(each);
    }
    this.#waiting = [];
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
    this.#file = { key, entry, sequence: this.tarEntries, isKept };
    if (!this.#digester.hasRoomFor(entry.size)) this.settle();
    this.#digester.begin(entry.size);
    if (isKept) this.#contents.begin(this.tarEntries, entry.size);
  }

  #hardlink(key: PathKey, entry: TarEntry): void {
    const target = parsePath(entry.link);
    const node = { ...nodeOf(entry, "hardlink", undefined), link: target };
    if (target === key) return;
    this.#add(key, node);
    this.#put({ key: target, sequence: this.tarEntries, mark: undefined, node, isRequest: true, ...unmoved });
  }

  #add(key: PathKey, node: LayerNode): void {
    this.#put(recordOf(key, this.tarEntries, node));
  }

  #record(key: PathKey, mark: "whiteout" | "opaque"): void {
    this.#put({ key, sequence: this.tarEntries, mark, node: undefined, isRequest: false, ...unmoved });
  }

  #put(record: SortRecord): void {
    if (this.#waiting.length === 0) this.sorter.add(record);
    else this.#wait(record);
  }

  #wait(each: SortRecord | GatheredFile): void {
    this.#waiting.push(each);
    if (this.#waiting.length >= waitingMax) this.settle();
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

function recordOf(key: PathKey, sequence: number, node: LayerNode): SortRecord {
  return { key, sequence, mark: undefined, node, isRequest: false, ...unmoved };
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
