import type { PathKey } from "./path.ts";

/** What a tar entry makes, or what it says about lower layers. */
export type EntryType = "file" | "dir" | "symlink" | "char" | "block" | "fifo" | "hardlink";

/** What one layer says of one path. Strings are latin-1 bytes. */
export interface LayerEntry {
  readonly key: PathKey;
  /** A whiteout: whatever lower layers have here, and below, is gone. */
  readonly isWhiteout: boolean;
  /** An opaque directory: its children in lower layers are gone. */
  readonly isOpaque: boolean;
  /** What the layer puts here; undefined when there are only marks. */
  readonly node: LayerNode | undefined;
}

export interface LayerNode {
  /** `hardlink` only where the target is not in this layer: merging resolves it in the layers below. */
  readonly type: EntryType;
  /** Permission bits, 07777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970, whole. */
  readonly mtime: number;
  /** Bytes of a file's content. */
  readonly size: number;
  /** MD5 (16 bytes), SHA-1 (20), SHA-256 (32) of a file's content, in this order, as 68 latin-1 characters. */
  readonly digests: string | undefined;
  /** Symlink: the target as it stands. Hard link: the key of the target, symlinked parents followed. A file that a hard link named: the key that the file had. */
  readonly link: string | undefined;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Extended attributes that matter, name → bytes (latin-1). */
  readonly xattrs: Readonly<Record<string, string>> | undefined;
}

/** A path of the squashed view. */
export interface MergedEntry {
  readonly key: PathKey;
  /** Never of type `hardlink`: those have become what they point to. */
  readonly node: LayerNode;
  /** Ordinal of the layer that says so, lowest = 0. */
  readonly layer: number;
  /** A directory that no layer names, but that something lies in. */
  readonly isImplied: boolean;
}

/** Length of {@link LayerNode.digests}. */
export const digestsLength = 16 + 20 + 32;
