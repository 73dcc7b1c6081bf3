import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { StowageError } from "../../src/errors/index.ts";
import { type Descriptor, type LayerSource, parseDigest } from "../../src/oci/index.ts";
import { throwIfAborted } from "../../src/runtime/index.ts";
import { createRandom } from "../fault/random.ts";

export interface ModelLayer {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

/** A layer of bytes that its seed decides. */
export function modelLayer(seed: number, size: number): ModelLayer {
  const bytes = createRandom(seed).bytes(size);
  const digest = parseDigest(`sha256:${createHash("sha256").update(bytes).digest("hex")}`);
  return { bytes, descriptor: { mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size } };
}

export function hexOf({ descriptor }: ModelLayer): string {
  return descriptor.digest.slice("sha256:".length);
}

/** A registry in memory that counts what it is asked, and fails where it is told to. */
export class ModelSource implements LayerSource {
  readonly isAuthority = true;
  readonly #layers: ReadonlyMap<string, ModelLayer>;
  /** Downloads, by digest. */
  readonly opened: string[] = [];
  /** Questions whether the requester may read a layer. */
  readonly asked: string[] = [];
  /** Nothing is this requester's. */
  isDenied = false;
  chunkBytes = 16 * 1024;
  /** Called before each chunk; what it throws is the connection's end. */
  onChunk: (position: number, layer: Descriptor) => Promise<void> | void = () => {};
  /** What is sent in place of a layer's bytes. */
  sent: (bytes: Buffer) => Buffer = (bytes) => bytes;

  constructor(layers: readonly ModelLayer[]) {
    this.#layers = new Map(layers.map((layer) => [layer.descriptor.digest, layer]));
  }

  async has(layer: Descriptor): Promise<boolean> {
    this.asked.push(layer.digest);
    return !this.isDenied && this.#layers.has(layer.digest);
  }

  async openFile(): Promise<undefined> {
    return undefined;
  }

  async recheck(): Promise<boolean> {
    return false;
  }

  open: LayerSource["open"] = async (layer, call) => {
    throwIfAborted(call);
    this.opened.push(layer.digest);
    if (this.isDenied) throw new StowageError("ACCESS_DENIED", { host: "model.test" });
    const found = this.#layers.get(layer.digest);
    if (found === undefined) throw new StowageError("IMAGE_BLOB_MISSING", { digest: layer.digest });
    const bytes = this.sent(found.bytes);
    const stream = Readable.from(this.#chunks(bytes, layer), { objectMode: false });
    call.signal.addEventListener("abort", () => stream.destroy(call.signal.reason as Error), { once: true });
    return stream;
  };

  async *#chunks(bytes: Buffer, layer: Descriptor): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += this.chunkBytes) {
      await this.onChunk(at, layer);
      yield bytes.subarray(at, at + this.chunkBytes);
    }
    await this.onChunk(bytes.length, layer);
  }
}

export async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
