import { StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { digestOf, verifyBytes } from "../digest.ts";
import { manifestAccept } from "../media-types.ts";
import { formatReference, type Reference, registryName } from "../reference.ts";
import { type ManifestReader, resolveImage } from "../resolve.ts";
import type { SourceOptions } from "../source-options.ts";
import type { Digest, ImageSource } from "../types.ts";
import { type BlobRequest, BlobStream } from "./blob-stream.ts";
import { RegistryClient } from "./client.ts";
import { refusal } from "./refusal.ts";
import { retrying } from "./retry.ts";
import { defaultSettings, type RegistrySettings } from "./settings.ts";
import { discard, readBody } from "./transport.ts";

/**
 * A repository at a registry, asked when something is resolved or opened.
 * @see OCI distribution-spec, "Pull"
 */
export function openRegistry(
  reference: Reference,
  options: SourceOptions,
  settings: RegistrySettings = defaultSettings,
): ImageSource {
  const { repository } = registryName(reference);
  const client = new RegistryClient(reference, options, settings);
  const again = <T>(work: () => Promise<T>, call: Call) => retrying(work, settings, options.progress, call);

  /** Blobs whose last stream was put together of ranges, and those that no ranges are asked of any more. */
  const pieced = new Set<Digest>();
  const wholeOnly = new Set<Digest>();

  /** A manifest or a configuration in whole; `undefined` where there is none. */
  function readDocument(path: string, what: string, call: Call) {
    return again(async () => {
      const answer = await client.get(path, { accept: manifestAccept }, call);
      if (answer.status === 404) {
        await discard(answer, call);
        return undefined;
      }
      if (answer.status !== 200) throw await refusal(answer, repository, call);
      const bound = {
        limit: "manifestBytesMax",
        max: options.limits.manifestBytesMax,
        timeoutMs: settings.documentTimeoutMs,
        what,
      };
      const type = answer.headers["content-type"];
      // Parameters of the type don't count.
      const mediaType = typeof type === "string" ? type.split(";", 1)[0]?.trim() : undefined;
      return { bytes: await readBody(answer, bound, call), mediaType };
    }, call);
  }

  const reader: ManifestReader = {
    async read(descriptor, what, call) {
      const kind = what === "manifest" ? "manifests" : "blobs";
      const found = await readDocument(`/v2/${repository}/${kind}/${descriptor.digest}`, what, call);
      if (found === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: descriptor.digest });
      return found.bytes;
    },
    async has() {
      return true;
    },
  };

  return {
    description: formatReference(reference),
    async resolve(platform, call) {
      const name = reference.digest ?? reference.tag ?? "latest";
      const found = await readDocument(`/v2/${repository}/manifests/${name}`, "the manifest", call);
      if (found === undefined) throw new StowageError("IMAGE_NOT_FOUND", { image: formatReference(reference) });
      const { bytes, mediaType } = found;
      // `Docker-Content-Digest` is often wrong or missing: only the bytes count.
      const digest = reference.digest ?? digestOf(bytes);
      verifyBytes(bytes, { digest }, `manifest ${digest}`);
      const root = { kind: "document", bytes, digest, mediaType } as const;
      const image = await resolveImage(root, platform, reader, options.limits.layersMax, call);
      const suggestedName = reference.tag && formatReference({ ...reference, digest: undefined });
      return { ...image, suggestedName };
    },
    layers: {
      isAuthority: true,
      openFile: async () => undefined,
      async recheck(layer) {
        if (!pieced.delete(layer.digest)) return false;
        wholeOnly.add(layer.digest);
        return true;
      },
      open(layer, call) {
        const path = `/v2/${repository}/blobs/${layer.digest}`;
        const request: BlobRequest = async (headers, inner) => {
          const answer = await client.get(path, headers, inner);
          if ([200, 206, 416].includes(answer.status)) return answer;
          if (answer.status !== 404) throw await refusal(answer, repository, inner);
          await discard(answer, inner);
          throw new StowageError("IMAGE_BLOB_MISSING", { digest: layer.digest });
        };
        const { digest } = layer;
        const note = (isPart: boolean) => (isPart ? pieced.add(digest) : pieced.delete(digest));
        const onPart = wholeOnly.has(digest) ? undefined : note;
        return BlobStream.open(request, layer, { settings, progress: options.progress, onPart }, call);
      },
      has(layer, call) {
        return again(async () => {
          const path = `/v2/${repository}/blobs/${layer.digest}`;
          // A redirect is an answer too: the registry gives it to those who may read only.
          const answer = await client.head(path, call).catch((error: unknown) => {
            if (error instanceof StowageError && error.code === "ACCESS_DENIED") return undefined;
            throw error;
          });
          if (answer === undefined) return false;
          await discard(answer, call);
          if (answer.status === 200 || (answer.status >= 300 && answer.status < 400)) return true;
          if ([401, 403, 404].includes(answer.status)) return false;
          throw new StowageError("REGISTRY_REFUSED", { host: answer.url.host, status: answer.status });
        }, call);
      },
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
