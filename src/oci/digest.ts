import { createHash } from "node:crypto";
import { StowageError } from "../errors/index.ts";
import type { DiffId, Digest } from "./types.ts";

/** Registered algorithms that stowage computes. @see OCI image-spec, descriptor.md, "Digests" */
const encodedLengths: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

/**
 * `text` as a digest. It goes into URLs and paths afterwards, so nothing but a registered algorithm and its exact hex form passes.
 * @throws StowageError `INPUT_INVALID`
 */
export function parseDigest(text: string): Digest {
  const digest = findDigest(text);
  if (digest === undefined) {
    throw new StowageError("INPUT_INVALID", {
      what: "digest",
      value: text.slice(0, 200),
      reason: "expected sha256:<64 lower-case hex digits> or sha512:<128>",
    });
  }
  return digest;
}

/** `text` as a digest, or `undefined` if it is none. */
export function findDigest(text: string): Digest | undefined {
  const match = /^(sha256|sha512):([0-9a-f]+)$/.exec(text);
  return match && match[2]?.length === encodedLengths[match[1] ?? ""] ? (text as Digest) : undefined;
}

/**
 * `text` as a diffID: sha256 only, as the layer reader computes nothing else over the uncompressed stream.
 * @throws StowageError `INPUT_INVALID`
 */
export function parseDiffId(text: string): DiffId {
  if (!/^sha256:[0-9a-f]{64}$/.test(text)) {
    throw new StowageError("INPUT_INVALID", {
      what: "diffID",
      value: text.slice(0, 200),
      reason: "expected sha256:<64 lower-case hex digits>",
    });
  }
  return text as DiffId;
}

/** The algorithm of a digest, as `node:crypto` names it. */
export function digestAlgorithm(digest: Digest | DiffId): "sha256" | "sha512" {
  return digest.startsWith("sha512:") ? "sha512" : "sha256";
}

/** The hexadecimal part of a digest. */
export function digestHex(digest: Digest | DiffId): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** The digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: "sha256" | "sha512" = "sha256"): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` as Digest;
}

/**
 * Checks bytes in memory against what names them.
 * @throws StowageError `IMAGE_SIZE_MISMATCH`, `IMAGE_DIGEST_MISMATCH`
 */
export function verifyBytes(bytes: Uint8Array, expected: { digest: Digest; size?: number }, what: string): void {
  if (expected.size !== undefined && bytes.length !== expected.size) {
    throw new StowageError("IMAGE_SIZE_MISMATCH", { what, expected: expected.size, actual: bytes.length });
  }
  const actual = digestOf(bytes, digestAlgorithm(expected.digest));
  if (actual !== expected.digest) {
    throw new StowageError("IMAGE_DIGEST_MISMATCH", { what, expected: expected.digest, actual });
  }
}
