import { StowageError } from "../errors/index.ts";
import type { Codec } from "./codec.ts";
import type { ObjectRef } from "./store.ts";

/**
 * Stored bytes say themselves what they are, so that a lost database can be rebuilt from a backend alone:
 *
 * | bytes | |
 * |---|---|
 * | 8 | `STOWOBJ1` |
 * | 4 | length of the header, little-endian |
 * | … | the header, JSON: installation, location, account, bucket, key, codec |
 * | … | the payload: the content, encoded |
 * | 32 | SHA-256 of the content |
 * | 8 | length of the content, little-endian |
 * | 8 | length of the payload, little-endian |
 * | 8 | `STOWEND1` |
 *
 * What is known before the first byte stands before, what is known after the last one behind.
 */
export interface EnvelopeHeader extends ObjectRef {
  readonly installation: string;
  readonly location: number;
  readonly codec: Codec;
}

export interface EnvelopeTrailer {
  /** `sha256:…` */
  readonly contentDigest: string;
  readonly contentBytes: number;
  readonly payloadBytes: number;
}

const headMagic = Buffer.from("STOWOBJ1", "latin1");
const tailMagic = Buffer.from("STOWEND1", "latin1");
export const prefixBytes = 12;
export const trailerBytes = 56;
/** Names in a header are bounded by the database's own limits of an index; this leaves room for escapes. */
export const headerBytesMax = 64 * 1024;

/** Everything before the payload. */
export function formatHeader(header: EnvelopeHeader): Buffer {
  const { installation, location, account, bucket, key, codec } = header;
  const json = Buffer.from(JSON.stringify({ installation, location, account, bucket, key, codec }));
  if (json.length > headerBytesMax) {
    throw new StowageError("LIMIT_EXCEEDED", { limit: "object name", max: headerBytesMax, found: json.length });
  }
  const prefix = Buffer.alloc(prefixBytes);
  headMagic.copy(prefix);
  prefix.writeUInt32LE(json.length, 8);
  return Buffer.concat([prefix, json]);
}

/** Length of the header that follows the prefix; `undefined` when it is none. */
export function headerLength(prefix: Buffer): number | undefined {
  if (prefix.length < prefixBytes || !prefix.subarray(0, 8).equals(headMagic)) return undefined;
  const length = prefix.readUInt32LE(8);
  return length <= headerBytesMax ? length : undefined;
}

/**
 * Whether a header says that its bytes were written for this object, at this location, in this codec. Which installation wrote them does not matter: that
 * is the marker's business, and all copies of a database have one name.
 */
export function isHeaderOf(header: Buffer, { location, account, bucket, key, codec }: HeaderOf): boolean {
  const expected = Buffer.from(JSON.stringify({ location, account, bucket, key, codec }));
  // As `formatHeader` writes it, the installation comes first, and all the rest ends it; nothing has to be parsed then.
  if (header.subarray(Math.max(0, header.length - expected.length + 1)).equals(expected.subarray(1))) return true;
  try {
    const found = Object(JSON.parse(header.toString())) as Partial<Record<keyof HeaderOf, unknown>>;
    const isSame = found.account === account && found.bucket === bucket && found.key === key;
    return isSame && found.location === location && found.codec === codec;
  } catch {
    return false;
  }
}

type HeaderOf = Omit<EnvelopeHeader, "installation">;

export function formatTrailer({ contentDigest, contentBytes, payloadBytes }: EnvelopeTrailer): Buffer {
  const trailer = Buffer.alloc(trailerBytes);
  trailer.write(contentDigest.slice("sha256:".length), 0, "hex");
  trailer.writeBigUInt64LE(BigInt(contentBytes), 32);
  trailer.writeBigUInt64LE(BigInt(payloadBytes), 40);
  tailMagic.copy(trailer, 48);
  return trailer;
}
