import { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { verifyBytes } from "./digest.ts";
import { type ParsedManifest, pairLayers, parseConfig, parseManifest } from "./manifest.ts";
import { isIndexType, isManifestType } from "./media-types.ts";
import { formatPlatform, machinePlatform, platformRank } from "./platform.ts";
import type { Descriptor, Digest, Platform, ResolvedImage } from "./types.ts";

/** What a kind of source must offer so that images can be found in it. */
export interface ManifestReader {
  /** Bytes of a manifest, index or configuration: at most the limit, not verified. */
  read(descriptor: Descriptor, what: "manifest" | "config", call: Call): Promise<Buffer>;
  /** Whether the manifest is there at all. A layout may keep only some of an index's images; a registry has them all. */
  has(descriptor: Descriptor, call: Call): Promise<boolean>;
}

/** Where the search begins: one document, or several manifests that stand beside each other in a layout. */
export type Root =
  | {
      readonly kind: "document";
      readonly bytes: Buffer;
      readonly digest: Digest;
      readonly mediaType: string | undefined;
    }
  | { readonly kind: "entries"; readonly entries: readonly Descriptor[] };

/** An index nests in practice once at most. */
const INDEX_DEPTH_MAX = 4;
const INDEXES_MAX = 64;
/** Entries without a platform whose configuration is read to learn it. */
const UNNAMED_PLATFORMS_MAX = 16;

interface Candidate {
  readonly descriptor: Descriptor;
  readonly platform: Platform;
}

/**
 * Finds the image of the wished platform below `root`, verifies manifest and configuration, pairs layers with diffIDs.
 * @throws StowageError `IMAGE_PLATFORM_MISSING` with the platforms there are, and what the documents' parsers throw
 */
export async function resolveImage(
  root: Root,
  wish: Platform | undefined,
  reader: ManifestReader,
  layersMax: number,
  call: Call,
): Promise<Omit<ResolvedImage, "suggestedName">> {
  if (root.kind === "document") {
    const parsed = parseManifest(root.bytes, root.mediaType);
    if (parsed.kind === "manifest") {
      const image = await finish(root.bytes, root.digest, parsed, undefined);
      const { platform } = image.config;
      if (wish !== undefined && platformRank(wish, platform) === undefined) throw platformMissing(wish, [platform]);
      return image;
    }
    return choose(parsed.manifests, { digest: root.digest, bytes: root.bytes });
  }
  const [only] = root.entries;
  if (only !== undefined && root.entries.length === 1) {
    const bytes = await readVerified(only, "manifest");
    return resolveImage(
      { kind: "document", bytes, digest: only.digest, mediaType: only.mediaType },
      wish,
      reader,
      layersMax,
      call,
    );
  }
  return choose(root.entries, undefined);

  async function choose(entries: readonly Descriptor[], index: ResolvedImage["index"]) {
    const candidates = await collect(entries);
    const { descriptor } = await pick(candidates);
    const bytes = await readVerified(descriptor, "manifest");
    const parsed = parseManifest(bytes, descriptor.mediaType);
    if (parsed.kind !== "manifest") {
      throw new StowageError("IMAGE_MANIFEST_INVALID", { reason: "a manifest turned out to be an index" });
    }
    return finish(bytes, descriptor.digest, parsed, index);
  }

  async function pick(candidates: readonly Candidate[]): Promise<Candidate> {
    if (wish !== undefined) {
      return best(wish, candidates) ?? fail(platformMissing(wish, platformsOf(candidates)));
    }
    const present: Candidate[] = [];
    for (const candidate of candidates) if (await reader.has(candidate.descriptor, call)) present.push(candidate);
    const [first] = present;
    if (first !== undefined && new Set(present.map(({ descriptor }) => descriptor.digest)).size === 1) return first;
    const machine = machinePlatform();
    if (first === undefined && candidates[0] !== undefined) {
      fail(new StowageError("IMAGE_BLOB_MISSING", { digest: candidates[0].descriptor.digest }));
    }
    return best(machine, present) ?? fail(platformMissing(machine, platformsOf(present)));
  }

  /** All images below these entries, nested indexes included, in the order of the documents. */
  async function collect(top: readonly Descriptor[]): Promise<readonly Candidate[]> {
    const found: Candidate[] = [];
    const seen = new Set<Digest>();
    let unnamed = 0;
    const visit = async (entries: readonly Descriptor[], depth: number): Promise<void> => {
      for (const entry of entries) {
        if (isAttestation(entry)) continue;
        if (isIndexType(entry.mediaType)) {
          if (seen.has(entry.digest) || !(await reader.has(entry, call))) continue;
          seen.add(entry.digest);
          if (depth >= INDEX_DEPTH_MAX) fail(limit("indexDepthMax", INDEX_DEPTH_MAX));
          if (seen.size > INDEXES_MAX) fail(limit("indexesMax", INDEXES_MAX));
          const parsed = parseManifest(await readVerified(entry, "manifest"), entry.mediaType);
          if (parsed.kind === "index") await visit(parsed.manifests, depth + 1);
        } else if (isManifestType(entry.mediaType)) {
          if (entry.platform !== undefined) {
            found.push({ descriptor: entry, platform: entry.platform });
            continue;
          }
          unnamed++;
          if (unnamed > UNNAMED_PLATFORMS_MAX) fail(limit("entriesWithoutPlatformMax", UNNAMED_PLATFORMS_MAX));
          const platform = await findPlatform(entry);
          if (platform !== undefined) found.push({ descriptor: entry, platform });
        }
        // Other types are not for us: the specification says to skip them.
      }
    };
    await visit(top, 0);
    return found;
  }

  /** The platform of an entry that names none: what its configuration says. `undefined` if it is no image. */
  async function findPlatform(entry: Descriptor): Promise<Platform | undefined> {
    if (!(await reader.has(entry, call))) return undefined;
    const bytes = await readVerified(entry, "manifest");
    try {
      const parsed = parseManifest(bytes, entry.mediaType);
      if (parsed.kind !== "manifest") return undefined;
      return parseConfig(await readVerified(parsed.config, "config")).config.platform;
    } catch (error) {
      if (error instanceof StowageError && error.code === "IMAGE_NOT_A_CONTAINER_IMAGE") return undefined;
      throw error;
    }
  }

  async function finish(
    manifest: Buffer,
    digest: Digest,
    parsed: Extract<ParsedManifest, { kind: "manifest" }>,
    index: ResolvedImage["index"],
  ): Promise<Omit<ResolvedImage, "suggestedName">> {
    if (parsed.layers.length > layersMax) fail(limit("layersMax", layersMax, parsed.layers.length));
    const { config, diffIds } = parseConfig(await readVerified(parsed.config, "config"));
    return {
      digest,
      mediaType: parsed.mediaType,
      manifest,
      index,
      imageId: parsed.config.digest,
      config,
      layers: pairLayers(parsed.layers, diffIds),
    };
  }

  async function readVerified(descriptor: Descriptor, what: "manifest" | "config"): Promise<Buffer> {
    const bytes = await reader.read(descriptor, what, call);
    verifyBytes(bytes, descriptor, `${what} ${descriptor.digest}`);
    return bytes;
  }
}

/** What buildkit and others put beside images: never the answer to a wish for a platform. */
export function isAttestation(entry: Descriptor): boolean {
  const { platform } = entry;
  const isUnknown = platform?.os === "unknown" && platform.architecture === "unknown";
  return isUnknown || entry.annotations?.["vnd.docker.reference.type"] === "attestation-manifest";
}

function best(wish: Platform, candidates: readonly Candidate[]): Candidate | undefined {
  let chosen: { candidate: Candidate; rank: number } | undefined;
  for (const candidate of candidates) {
    const rank = platformRank(wish, candidate.platform);
    if (rank !== undefined && (chosen === undefined || rank < chosen.rank)) chosen = { candidate, rank };
  }
  return chosen?.candidate;
}

function platformsOf(candidates: readonly Candidate[]): readonly Platform[] {
  return candidates.map((candidate) => candidate.platform);
}

function platformMissing(wish: Platform, available: readonly Platform[]): StowageError {
  const names = [...new Set(available.map(formatPlatform))].slice(0, 50);
  const details = { platform: formatPlatform(wish), available: names };
  if (names.length === 0) {
    const reason = "its index has no images";
    return new StowageError("IMAGE_PLATFORM_MISSING", { ...details, reason });
  }
  return new StowageError("IMAGE_PLATFORM_MISSING", details, { hint: `choose one with --platform ${names[0]}` });
}

function limit(name: string, max: number, found?: number): StowageError {
  return new StowageError("LIMIT_EXCEEDED", { limit: name, max, ...(found === undefined ? {} : { found }) });
}

function fail(error: StowageError): never {
  throw error;
}
