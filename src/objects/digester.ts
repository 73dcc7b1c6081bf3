import { createHash, type Hash, hash } from "node:crypto";

/** Counts and digests the bytes that pass. */
export class Digester {
  readonly #hash: Hash = createHash("sha256");
  #bytes = 0;

  update(chunk: Buffer): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** `sha256:…`; only once. */
  digest(): string {
    return `sha256:${this.#hash.digest("hex")}`;
  }
}

export function sha256(bytes: Buffer): Buffer {
  return hash("sha256", bytes, "buffer");
}

/** `sha256:…` */
export function formatDigest(digest: Buffer): string {
  return `sha256:${digest.toString("hex")}`;
}

/** `sha256:…` of bytes that are in memory as a whole. */
export function digestOf(bytes: Buffer): string {
  return formatDigest(sha256(bytes));
}
