/**
 * What catalogers find. A finding of a layer is a value of plain JSON that depends on that layer's bytes only; findings of all layers are
 * reconciled with the squashed view into packages of the image.
 */

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** A file that a package owns, as its package database records it. Paths are absolute without the leading slash, as shipped. */
export interface OwnedFile {
  readonly path: string;
  /** `algorithm:hex`, for example `md5:…`, `sha1:…`, `sha256:…`. */
  readonly digest?: string;
  /** Permission bits, and type bits where the database has them; decimal number. */
  readonly mode?: number;
  readonly user?: string;
  readonly group?: string;
  readonly uid?: number;
  readonly gid?: number;
  readonly sizeBytes?: number;
  readonly isDirectory?: boolean;
  readonly isConfiguration?: boolean;
  /** The package owns the path but brought no content: a log, a state file. It may be missing or differ. */
  readonly isGhost?: boolean;
  readonly linkTarget?: string;
}

/** A finding in one layer. */
export interface Finding {
  /** Which sort of finding, unique within its cataloger, for example `package`, `owned`, `distro`. */
  readonly kind: string;
  /** The image path of the file it was found in (text form, no leading slash). */
  readonly path: string;
  /** Small: held in memory for all layers of an image at once. */
  readonly value: JsonValue;
  /** Large lists go here: they are stored beside the value and read as a stream only when asked for. */
  readonly files?: readonly OwnedFile[];
}

/** A stored finding: without `files`, with its place. */
export interface LayerFinding {
  /** Ordinal of the layer in the image, lowest = 0. */
  readonly layer: number;
  /** Ordinal of the finding within its layer's document. */
  readonly ordinal: number;
  readonly kind: string;
  readonly path: string;
  readonly value: JsonValue;
  readonly hasFiles: boolean;
}

/** Reference to the `files` of a stored finding. */
export interface OwnedReference {
  readonly layer: number;
  readonly ordinal: number;
}

/** A file that a cataloger asked for, with its content. */
export interface SelectedFile {
  /** Image path, text form, no leading slash. Bytes that are not UTF-8 stand as lone surrogates U+DC80–U+DCFF. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Permission bits (07777). */
  readonly mode: number;
  /** Reads the whole content; at most the cataloger's `fileBytesMax`. */
  read(): Buffer;
}

/** The files that one cataloger asked for in one layer, sorted by path. A larger file than allowed is not among them: a note says so. */
export interface SelectedFiles extends Iterable<SelectedFile> {
  get(path: string): SelectedFile | undefined;
}

/** What reconciling may know of the squashed view: only paths that catalogers asked for. */
export interface AskedPaths {
  /** Ordinal of the layer whose regular file is visible at `path` in the squashed view; `undefined` if none is. */
  layerOf(path: string): number | undefined;
}

export type PackageType = "apk" | "dpkg" | "rpm" | "npm" | "python";

/** A package of an image. */
export interface Package {
  readonly type: PackageType;
  readonly name: string;
  /** The whole version as the system shows it, epoch and release included. */
  readonly version: string;
  readonly epoch?: number;
  /** Upstream part, where the system distinguishes. */
  readonly upstreamVersion?: string;
  readonly release?: string;
  readonly architecture?: string;
  readonly source?: { readonly name: string; readonly version?: string };
  readonly licenses: readonly string[];
  /** Installed size in bytes as the package says. */
  readonly sizeBytes?: number;
  /** Maintainer, vendor or author: whoever the package names as responsible. */
  readonly origin?: string;
  readonly description?: string;
  readonly homepage?: string;
  /** @see https://github.com/package-url/purl-spec */
  readonly purl: string;
  /** Image path of the file that says so. */
  readonly location: string;
  /** Ordinal of the layer that holds that file. */
  readonly layer: number;
  readonly cataloger: string;
  /** Where the lists of its files are; the union by path, later references adding to or replacing fields of earlier ones. */
  readonly owned: readonly OwnedReference[];
  /** purl of the OS package whose file list contains `location`. */
  readonly ownedBy?: string;
}

export interface Distribution {
  readonly id: string;
  readonly version: string;
  /** `ID_LIKE`, split. */
  readonly like: readonly string[];
  readonly prettyName?: string;
}

/** What an image's catalogers agree on. */
export interface ImageFindings {
  readonly packages: readonly Package[];
  readonly distribution?: Distribution;
  /** Anything else, by kind; small. */
  readonly other?: Readonly<Record<string, JsonValue>>;
  /** Things an operator should know, for example a damaged package database. */
  readonly notes?: readonly { readonly code: string; readonly path: string; readonly text: string }[];
}

/**
 * A pure function from files to findings: no clock, no network, no file system, no state.
 *
 * `wants` are globs on image paths without leading slash: `**\/` any number of directories (also none), `*` anything but `/`.
 * Matching is on the text form of paths.
 */
export interface Cataloger {
  readonly name: string;
  /** Raised whenever the same files could give other findings: part of every layer document's key. */
  readonly version: number;
  readonly wants: readonly string[];
  /** Larger files are not read; a note says so. */
  readonly fileBytesMax: number;
  /** Findings in one layer, in a fixed order. Broken input costs the record, not the file; the file, not the layer: report it as a finding of kind `problem` with `{ text }`. */
  catalog(files: SelectedFiles): Iterable<Finding>;
  /**
   * Packages of the image. `layers` has this cataloger's own findings, lowest layer first, in stored order. `distribution` is what the distribution
   * cataloger found (for purls); it runs first.
   */
  reconcile(
    findings: readonly LayerFinding[],
    image: AskedPaths,
    distribution: Distribution | undefined,
  ): ImageFindings;
}
