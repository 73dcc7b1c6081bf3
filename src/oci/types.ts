import type { Readable } from "node:stream";
import type { Call } from "../runtime/index.ts";

declare const brand: unique symbol;

/** Digest of bytes as they are stored or sent, `sha256:<64 lower-case hex>` (or sha512). Made by `parseDigest` only. */
export type Digest = string & { readonly [brand]: "Digest" };
/** Digest of a layer's uncompressed tar stream. Never interchangeable with a {@link Digest} of the blob. Made by `parseDiffId` only. */
export type DiffId = string & { readonly [brand]: "DiffId" };

/** `os/architecture[/variant]` in containerd's normal form. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
}

/** @see OCI image-spec, descriptor.md */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Platform;
}

/** How a layer's blob is compressed according to its media type; `undefined` where the media type doesn't say. */
export type LayerCompression = "none" | "gzip" | "zstd";

/** A layer of an image: its blob, and what the image's configuration claims about it. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  /** What the configuration claims the uncompressed stream's digest is. */
  readonly diffId: DiffId;
  /** From the media type. Docker's uncompressed type is sometimes compressed in the wild: then `undefined`, and the bytes decide. */
  readonly compression: LayerCompression | undefined;
  /** A layer that is not distributed with the image (deprecated foreign types): reported, never fetched by its URL. */
  readonly isForeign: boolean;
}

/** @see OCI image-spec, config.md. Only what stowage uses is typed; `raw` is the whole document as sent. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly created: string | undefined;
  readonly author: string | undefined;
  readonly user: string | undefined;
  readonly environment: readonly string[];
  readonly entrypoint: readonly string[] | undefined;
  readonly command: readonly string[] | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly exposedPorts: readonly string[];
  readonly history: readonly {
    readonly createdBy: string;
    readonly created?: string;
    readonly comment?: string;
    readonly isEmptyLayer: boolean;
  }[];
  readonly raw: Buffer;
}

/** An image of one platform, its manifest and configuration verified. */
export interface ResolvedImage {
  /** Digest of the platform's manifest: the image's name in stowage. For old Docker archives it is computed over a Docker version-2 manifest made on the fly. */
  readonly digest: Digest;
  readonly mediaType: string;
  readonly manifest: Buffer;
  /** Digest and bytes of the index through which the manifest was found, if any (the outermost). */
  readonly index: { readonly digest: Digest; readonly bytes: Buffer } | undefined;
  /** Digest of the configuration, with its algorithm. */
  readonly imageId: Digest;
  readonly config: ImageConfig;
  /** Lowest first. */
  readonly layers: readonly ImageLayer[];
  /** Full tag that the source suggests, if it does: the reference as typed, RepoTags or names in an archive (`docker.io/alpine:3.20`). */
  readonly suggestedName: string | undefined;
}

/** A blob that lies in a file: bytes of an open descriptor, which any thread of the process can read. Disposing of it closes what was opened. */
export interface LayerFile extends AsyncDisposable {
  /** For messages. */
  readonly description: string;
  readonly descriptor: number;
  readonly start: number;
  readonly size: number;
}

/** Where layer blobs come from: registry, layout, archive, and later the cache before them. */
export interface LayerSource {
  /** The blob as stored, not verified: whoever reads it checks digest and size. Destroying the stream frees everything. */
  open(layer: Descriptor, call: Call): Promise<Readable>;
  /** The same bytes as part of a file, not verified either; `undefined` where they are in none. */
  openFile(layer: Descriptor, call: Call): Promise<LayerFile | undefined>;
  /**
   * Whether {@link has} proves that the requester may read the blob: a registry decides with the requester's own credentials, but that a local file
   * bears a blob's name proves nothing.
   */
  readonly isAuthority: boolean;
  /** Whether the blob is there for the requester, without reading it. */
  has(layer: Descriptor, call: Call): Promise<boolean>;
  /**
   * For who read the blob to no good end, or found that it is not what its descriptor says: whether it may help to open it once more. A cache looks at
   * the bytes that it keeps, and forgets those that are damaged; a registry may have put the stream together of ranges that don't fit, and gives it in one
   * piece the next time; others have nothing that could change.
   */
  recheck(layer: Descriptor, call: Call): Promise<boolean>;
}

/** An opened source of images. */
export interface ImageSource extends AsyncDisposable {
  /** For people: the source as they named it, without credentials. */
  readonly description: string;
  /**
   * Finds the image, chooses the platform, verifies manifest and configuration, pairs layers with diffIDs.
   * Without a wish: the only platform there is, else the machine's own, `linux` for any host.
   */
  resolve(platform: Platform | undefined, call: Call): Promise<ResolvedImage>;
  readonly layers: LayerSource;
}
