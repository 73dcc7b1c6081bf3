import type { AnalysisReport } from "../analysis/index.ts";
import type { Configuration, Environment, Limits } from "../config/index.ts";
import type { DatabaseLocation } from "../db/index.ts";
import type { StowageError } from "../errors/index.ts";
import type { JsonValue, OwnedFile, Package, PackageType } from "../layer/index.ts";
import type { Call, Progress } from "../runtime/index.ts";
import type { ObjectStorage } from "./object-storage.ts";

/** What a list of images says of each. */
export interface ImageSummary {
  /** Digest of the platform's manifest: the image's name in stowage. */
  readonly digest: string;
  readonly imageId: string;
  /** `registry/repository:tag`, sorted. */
  readonly fullTags: readonly string[];
  /** `os/architecture[/variant]` */
  readonly platform: string;
  /** Id and version, for example `debian 12`. */
  readonly distribution: string | undefined;
  readonly layers: number;
  /** Names in the squashed view, directories included. */
  readonly files: number;
  /** By package type, sorted by name. */
  readonly packages: Readonly<Record<string, number>>;
  /** Compressed size of all layers. */
  readonly blobBytes: number;
  /** Sum of the sizes of the squashed view's regular files. */
  readonly fileBytes: number;
  /** What is wrong with what is kept of it, and what to do about it. */
  readonly damage: string | undefined;
  readonly analyzedAt: Date;
}

export interface ImageLayerRecord {
  /** Lowest layer = 0. */
  readonly position: number;
  readonly blobDigest: string;
  readonly diffId: string;
  readonly mediaType: string;
  readonly blobBytes: number;
  /** False for a foreign layer: nothing is known of its content. */
  readonly isFetched: boolean;
}

/** Something an operator should know, for example a place where unpackers disagree about the image. */
export interface ImageNote {
  readonly code: string;
  /** Position of the layer it is about, if it is about one. */
  readonly layer: number | undefined;
  readonly path: string;
  readonly text: string;
}

/** All that is known of an image, apart from its files and packages. */
export interface ImageDetails extends ImageSummary {
  /** Digest of the index through which the image was found, else its own. */
  readonly parentDigest: string;
  readonly layerList: readonly ImageLayerRecord[];
  readonly notes: readonly ImageNote[];
  /** How many notes were counted but not kept. */
  readonly notesLeftOut: number;
  /** Files with the set-user-ID or set-group-ID bit. */
  readonly suidFiles: readonly { readonly path: string; readonly mode: string }[];
  /** Users in the image's `/etc/passwd`. */
  readonly users: number;
  /** The image's configuration as its author wrote it. */
  readonly config: JsonValue;
}

/** A name in an image's squashed view. */
export interface FileRecord {
  /** No leading slash. Bytes that are not UTF-8 stand as lone surrogates U+DC80–U+DCFF. */
  readonly path: string;
  readonly type: "file" | "dir" | "symlink" | "char" | "block" | "fifo";
  /** Permission bits in four octal digits. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly linkTarget?: string;
  /** The path that its file had when a hard link made this name, links followed; by now it may be gone or hold another file. */
  readonly hardlinkOf?: string;
  /** `major:minor` of a device node. */
  readonly device?: string;
  /** Hexadecimal, regular files only, like the next two. */
  readonly md5?: string;
  readonly sha1?: string;
  readonly sha256?: string;
  /** ISO 8601, UTC. */
  readonly mtime?: string;
  /** Position of the layer it comes from. */
  readonly layer: number;
  /** Values in base64. */
  readonly xattrs?: Readonly<Record<string, string>>;
  /** A directory that no layer has an entry for, only entries below it. */
  readonly isImplied?: true;
}

/** A package, with the files that it owns where its package database lists them. */
export type PackageRecord = Package & { readonly files?: AsyncIterable<OwnedFile> };

/** A part of one image's content: which image it is, and the items as a stream that can be read once. */
export interface ImageContent<T> {
  readonly digest: string;
  readonly items: AsyncIterable<T>;
}

/** What was deleted. */
export interface DeletionReport {
  readonly digest: string;
  readonly fullTags: readonly string[];
  /** Bytes of its own documents, which are given back when the grace period of readers is over; layers that other images stand on stay. */
  readonly bytesReclaimed: number;
}

export interface AnalyzeOptions {
  /** `os/architecture[/variant]` as the user typed it. */
  readonly platform?: string;
  /** `REPOSITORY:TAG` to keep the image under, instead of the source's own suggestion. */
  readonly name?: string;
  /** Plain HTTP and unverified certificates are acceptable. */
  readonly insecure: boolean;
  readonly progress: Progress;
}

/** What decides which image it is, and how it is reached. */
export interface SourceRequest extends Pick<AnalyzeOptions, "platform" | "insecure" | "progress"> {
  readonly source: string;
}

/** What is to be analysed at once; what is named twice is analysed once. */
export interface SourceSelection {
  readonly sources: readonly string[];
  /** Repositories of registries, all tags of which are sources. */
  readonly repositories: readonly string[];
}

/** What became of one of several sources; a repository whose tags can't be listed is a source that failed. `notDone`: the command was stopped before. */
export type AnalysisOutcome =
  | { readonly source: string; readonly outcome: "analyzed"; readonly report: AnalysisReport }
  | { readonly source: string; readonly outcome: "failed"; readonly error: StowageError }
  | { readonly source: string; readonly outcome: "notDone" };

/** How the analysis of several sources goes. */
export interface SeveralProgress extends Progress {
  /** So many sources there are. */
  plan(sources: number): void;
  /** The analysis of a source begins: where it tells its progress. */
  beginSource(source: string): Progress;
  endSource(outcome: AnalysisOutcome): void;
}

export interface AnalyzeSeveralOptions extends Omit<AnalyzeOptions, "name" | "progress"> {
  readonly progress: SeveralProgress;
}

/**
 * stowage as its commands see it. `image` is a digest, an image id or a full tag.
 * Methods that take one throw `IMAGE_NOT_FOUND` or `IMAGE_AMBIGUOUS`, before the first item of a stream.
 */
export interface Application extends AsyncDisposable {
  analyze(source: string, options: AnalyzeOptions, call: Call): Promise<AnalysisReport>;
  /**
   * Analyses several sources, several at once. One that fails stops no other. Once it is known which they are, it resolves also when the
   * call is aborted: what was done by then stays done. The outcomes are in the order of the sources.
   * @throws StowageError `INPUT_INVALID`, `LIMIT_EXCEEDED`, before anything is analysed
   */
  analyzeSeveral(
    selection: SourceSelection,
    options: AnalyzeSeveralOptions,
    call: Call,
  ): Promise<readonly AnalysisOutcome[]>;
  /** Newest analysis first. */
  listImages(call: Call): AsyncIterable<ImageSummary>;
  getImage(image: string, call: Call): Promise<ImageDetails>;
  /** Packages of the given types, sorted by type and name. Each package's files are read before the next package is asked for, or not at all. */
  packagesOf(image: string, types: readonly PackageType[], call: Call): Promise<ImageContent<PackageRecord>>;
  /** The squashed view, sorted by path (bytes). */
  filesOf(image: string, call: Call): Promise<ImageContent<FileRecord>>;
  deleteImage(image: string, call: Call): Promise<DeletionReport>;
  readonly objectStorage: ObjectStorage;
}

export interface ApplicationOptions {
  /** Take the store for this process alone: refused while others have it open. */
  readonly isAlone?: boolean;
  /** In a word or two, for other processes that have to wait for this one: `analyze`. */
  readonly purpose: string;
  /** Which stores there are. The database is named by `database`, whatever the configuration says. */
  readonly configuration: Configuration;
  readonly database: DatabaseLocation;
  readonly limits: Limits;
  readonly temporaryDirectory: string;
  /**
   * Images will be analysed: what that needs besides the database starts while the database does. If it is known which one is the first, it is looked for;
   * where the database is only being made, so that it can't know anything, its layers are read.
   */
  readonly willAnalyze?: { readonly first?: SourceRequest };
  /** Where registry credentials are looked for. */
  readonly credentials: Environment["credentials"];
}
