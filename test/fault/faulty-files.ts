import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { basename, dirname } from "node:path";
import type { FileCalls, FileStatus, NameOfFile, OpenFile } from "../../src/objects/drivers/localfs/file-calls.ts";
import { createRandom } from "./random.ts";

export type FileCallName =
  | "open"
  | "write"
  | "read"
  | "sync"
  | "fileStatus"
  | "fileChmod"
  | "fileChgrp"
  | "close"
  | "mkdir"
  | "chmod"
  | "chgrp"
  | "link"
  | "rename"
  | "unlink"
  | "status"
  | "linkStatus"
  | "names";

/** One call, as it was made. */
export interface RecordedCall {
  readonly name: FileCallName;
  readonly path: string;
}

/** What happens to a call instead of, or beside, its effect. */
export type FileFault =
  /** Fails with an errno; `after`: though it was done. */
  | { readonly kind: "fail"; readonly code: string; readonly when?: "before" | "after" }
  /** `write`, `read`: takes or gives so many bytes only. */
  | { readonly kind: "short"; readonly bytes: number }
  /** `sync`: says that it was done. */
  | { readonly kind: "lost" }
  /** `read`: one bit is another. */
  | { readonly kind: "flip"; readonly bit: number }
  /** The power goes before the call is done: it and all later ones fail. */
  | { readonly kind: "crash" };

/** What a disk made of that which was not fsynced. */
export interface CrashChoice {
  /** Bytes: none of them, all, the first half, or as many zeros. */
  readonly content: "lost" | "kept" | "torn" | "zeros";
  /** Names: no change of them, all, or each as a seed decides, in no order. */
  readonly names: "lost" | "kept" | { readonly seed: number };
}

interface Inode {
  readonly ino: bigint;
  readonly isDirectory: boolean;
  mode: number;
  /** What calls see. */
  content: Buffer;
  readonly entries: Map<string, Inode>;
  /** What was fsynced. */
  durableContent: Buffer;
  durableEntries: Map<string, Inode>;
  /** Changes of names since the last fsync, the oldest first. */
  pending: { readonly name: string; readonly inode: Inode | undefined }[];
}

/**
 * A file system in memory, with the freedom that POSIX gives a real one: what was not fsynced may be there after a power loss or not, bytes in part, names
 * each for itself, whatever the order in which they came. Harsher than ext4 in its default mode, which is what an order has to be tested against.
 */
export class FaultyFiles implements FileCalls {
  readonly calls: RecordedCall[] = [];
  #root: Inode;
  #isDown = false;
  #nextIno = 1n;
  /** Decides what happens to a call; `nth` counts all calls, the first is 1. */
  fault: (call: RecordedCall, nth: number) => FileFault | undefined = () => undefined;

  constructor() {
    this.#root = this.#inode(true);
  }

  /** The power comes back: the same disk, as it was found. */
  reboot({ content, names }: CrashChoice): FaultyFiles {
    const random = typeof names === "object" ? createRandom(names.seed) : undefined;
    const known = new Map<Inode, Inode>();
    const after = new FaultyFiles();
    const restore = (inode: Inode): Inode => {
      const restored = known.get(inode) ?? after.#inode(inode.isDirectory, inode.mode);
      if (known.has(inode)) return restored;
      known.set(inode, restored);
      restored.content = contentAfter(inode, content);
      restored.durableContent = restored.content;
      const entries = new Map(inode.durableEntries);
      for (const change of inode.pending) {
        if (names === "lost" || (random !== undefined && random.next() < 0.5)) continue;
        if (change.inode === undefined) entries.delete(change.name);
        else entries.set(change.name, change.inode);
      }
      for (const [name, child] of entries) restored.entries.set(name, restore(child));
      restored.durableEntries = new Map(restored.entries);
      return restored;
    };
    after.#root = restore(this.#root);
    return after;
  }

  /** Paths of all files, as calls see them. */
  files(): string[] {
    const found: string[] = [];
    const walk = (inode: Inode, path: string) => {
      if (!inode.isDirectory) found.push(path);
      for (const [name, child] of inode.entries) walk(child, `${path}/${name}`);
    };
    walk(this.#root, "");
    return found;
  }

  /** All that is on it, as text: the same for the same. */
  fingerprint(): string {
    const lines: string[] = [];
    const walk = (inode: Inode, path: string) => {
      lines.push(`${path} ${inode.isDirectory ? "/" : createHash("sha256").update(inode.content).digest("hex")}`);
      for (const [name, child] of inode.entries) walk(child, `${path}/${name}`);
    };
    walk(this.#root, "");
    return lines.sort().join("\n");
  }

  /** Cuts a file that is there, as a failing disk or another program would. */
  truncate(path: string, bytes: number): void {
    const inode = this.#find(path);
    inode.content = inode.content.subarray(0, bytes);
  }

  async open(path: string, flags: number, mode = 0): Promise<OpenFile> {
    await this.#step("open", path, () => this.#open(path, flags, mode));
    const inode = this.#find(path);
    const step = <T>(name: FileCallName, work: (fault: FileFault | undefined) => T) => this.#step(name, path, work);
    return {
      write: (bytes, position) =>
        step("write", (fault) => {
          const all = Buffer.concat(bytes);
          const taken = fault?.kind === "short" ? all.subarray(0, fault.bytes) : all;
          const grown = Buffer.alloc(Math.max(inode.content.length, position + taken.length));
          inode.content.copy(grown);
          taken.copy(grown, position);
          inode.content = grown;
          return taken.length;
        }),
      read: (into, position) =>
        step("read", (fault) => {
          const room = fault?.kind === "short" ? Math.min(fault.bytes, into.length) : into.length;
          const given = Buffer.from(inode.content.subarray(position, position + room));
          if (fault?.kind === "flip" && given.length > 0) {
            const at = (fault.bit >> 3) % given.length;
            given[at] = (given[at] as number) ^ (1 << (fault.bit & 7));
          }
          return given.copy(into);
        }),
      sync: () =>
        step("sync", (fault) => {
          if (fault?.kind === "lost") return;
          inode.durableContent = inode.content;
          inode.durableEntries = new Map(inode.entries);
          inode.pending = [];
        }),
      status: () => step("fileStatus", () => statusOf(inode)),
      chmod: (mode) =>
        step("fileChmod", () => {
          inode.mode = mode;
        }),
      chgrp: () => step("fileChgrp", () => {}),
      close: () => step("close", () => {}),
    };
  }

  mkdir(path: string): Promise<void> {
    return this.#step("mkdir", path, () => {
      if (this.#lookUp(path)) throw failure("EEXIST", path);
      this.#change(path, this.#inode(true));
    });
  }

  chmod(path: string): Promise<void> {
    return this.#step("chmod", path, () => void this.#find(path));
  }

  chgrp(path: string): Promise<void> {
    return this.#step("chgrp", path, () => void this.#find(path));
  }

  link(existing: string, path: string): Promise<void> {
    return this.#step("link", path, () => {
      const inode = this.#find(existing);
      if (this.#lookUp(path)) throw failure("EEXIST", path);
      this.#change(path, inode);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#step("rename", to, () => {
      const inode = this.#find(from);
      this.#change(to, inode);
      this.#change(from, undefined);
    });
  }

  unlink(path: string): Promise<void> {
    return this.#step("unlink", path, () => {
      this.#find(path);
      this.#change(path, undefined);
    });
  }

  status(path: string): Promise<FileStatus> {
    return this.#step("status", path, () => statusOf(this.#find(path)));
  }

  linkStatus(path: string): Promise<FileStatus> {
    return this.#step("linkStatus", path, () => statusOf(this.#find(path)));
  }

  async *names(path: string): AsyncGenerator<NameOfFile> {
    yield* await this.#step("names", path, () =>
      [...this.#find(path).entries].map(([name, { isDirectory }]) => ({ name, isFile: !isDirectory })),
    );
  }

  async #step<T>(name: FileCallName, path: string, work: (fault: FileFault | undefined) => T): Promise<T> {
    // Between two calls, others get their turn, as with real files.
    await Promise.resolve();
    if (this.#isDown) throw failure("EIO", "the power is off");
    const call = { name, path };
    this.calls.push(call);
    const fault = this.fault(call, this.calls.length);
    if (fault?.kind === "crash") this.#isDown = true;
    if (fault?.kind === "crash") throw failure("EIO", "the power is off");
    if (fault?.kind === "fail" && fault.when !== "after") throw failure(fault.code, path);
    const result = work(fault);
    if (fault?.kind === "fail") throw failure(fault.code, path);
    return result;
  }

  #open(path: string, flags: number, mode: number): void {
    const found = this.#lookUp(path);
    if (flags & constants.O_CREAT) {
      if (found) throw failure("EEXIST", path);
      this.#change(path, this.#inode(false, mode));
    } else if (!found) throw failure("ENOENT", path);
    else if (flags & constants.O_DIRECTORY && !found.isDirectory) throw failure("ENOTDIR", path);
  }

  #inode(isDirectory: boolean, mode = 0o750): Inode {
    const ino = this.#nextIno++;
    const content = Buffer.alloc(0);
    const maps = { entries: new Map<string, Inode>(), durableEntries: new Map<string, Inode>() };
    return { ino, isDirectory, mode, content, durableContent: content, ...maps, pending: [] };
  }

  #lookUp(path: string): Inode | undefined {
    let inode: Inode | undefined = this.#root;
    for (const name of path.split("/")) if (name !== "") inode = inode?.entries.get(name);
    return inode;
  }

  #find(path: string): Inode {
    const inode = this.#lookUp(path);
    if (!inode) throw failure("ENOENT", path);
    return inode;
  }

  #change(path: string, inode: Inode | undefined): void {
    const directory = this.#find(dirname(path));
    const name = basename(path);
    if (inode === undefined) directory.entries.delete(name);
    else directory.entries.set(name, inode);
    directory.pending.push({ name, inode });
  }
}

/** Does what a driver that fsyncs too late would do: a file's bytes become durable after it was given its name, not before. */
export function syncedAfterLink(files: FaultyFiles): FileCalls {
  const owed: (() => Promise<void>)[] = [];
  return new Proxy(files, {
    get(target, property) {
      if (property === "open") {
        return async (path: string, flags: number) => {
          const file = await target.open(path, flags);
          if (!(flags & constants.O_CREAT)) return file;
          return { ...file, sync: async () => void owed.push(file.sync), close: async () => {} };
        };
      }
      if (property === "link") {
        return async (existing: string, path: string) => {
          await target.link(existing, path);
          for (const sync of owed.splice(0)) await sync();
        };
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function contentAfter({ content, durableContent }: Inode, choice: CrashChoice["content"]): Buffer {
  if (content === durableContent) return content;
  switch (choice) {
    case "lost":
      return durableContent;
    case "kept":
      return content;
    case "torn":
      return content.subarray(0, content.length >> 1);
    case "zeros":
      return Buffer.alloc(content.length);
  }
}

function statusOf(inode: Inode): FileStatus {
  return {
    dev: 1n,
    ino: inode.ino,
    size: BigInt(inode.content.length),
    mode: BigInt(inode.mode),
    isFile: () => !inode.isDirectory,
    isDirectory: () => inode.isDirectory,
  };
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
