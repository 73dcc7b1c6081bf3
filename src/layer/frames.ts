import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { StowageError } from "../errors/index.ts";

/**
 * The container of stowage's documents: eight bytes of magic, then frames, each with a kind and zstd-compressed content that carries its own
 * checksum; a frame of kind `end` is the last. A document can be read as a stream, and stopped after the part that is wanted.
 *
 *     frame = kind (1 byte), length of the content (4, little-endian), length as stored (4), CRC-32 of these nine bytes (4), stored bytes
 */
const frameKinds = { facts: 1, findings: 2, owned: 3, notes: 4, entries: 5, packages: 6, end: 255 } as const;
export type FrameKind = keyof typeof frameKinds;

export interface Frame {
  readonly kind: FrameKind;
  readonly content: Buffer;
}

const headBytes = 13;
/** No frame is larger: writers split, readers refuse. */
const frameBytesMax = 64 * 1024 * 1024;
const kindsByNumber: ReadonlyMap<number, FrameKind> = new Map(
  Object.entries(frameKinds).map(([kind, number]) => [number, kind as FrameKind]),
);

export function encodeFrame(kind: FrameKind, content: Buffer): Buffer {
  const stored = zstdCompressSync(content, {
    params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_checksumFlag]: 1 },
  });
  const frame = Buffer.allocUnsafe(headBytes + stored.length);
  frame[0] = frameKinds[kind];
  frame.writeUInt32LE(content.length, 1);
  frame.writeUInt32LE(stored.length, 5);
  frame.writeUInt32LE(crc32(frame.subarray(0, 9)), 9);
  stored.copy(frame, headBytes);
  return frame;
}

/**
 * The frames of a document, up to and without `end`.
 * @throws StowageError `LAYER_DOCUMENT_INVALID`
 */
export async function* readFrames(body: AsyncIterable<Buffer>, magic: string, document: string): AsyncGenerator<Frame> {
  const invalid = (reason: string, cause?: unknown) =>
    new StowageError("LAYER_DOCUMENT_INVALID", { document, reason }, cause === undefined ? {} : { cause });
  let state: "magic" | "frames" | "ended" = "magic";
  let needed = magic.length;
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    parts.push(chunk);
    length += chunk.length;
    while (state !== "ended" && length >= needed) {
      const bytes: Buffer = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
      let used = 0;
      if (state === "magic") {
        if (bytes.toString("latin1", 0, magic.length) !== magic) throw invalid("it is no such document");
        state = "frames";
        used = magic.length;
        needed = headBytes;
      } else {
        const head = readHead(bytes, invalid);
        needed = headBytes + head.storedBytes;
        if (length >= needed) {
          used = needed;
          needed = headBytes;
          if (head.kind === "end") state = "ended";
          else yield { kind: head.kind, content: decode(bytes.subarray(headBytes, used), head.contentBytes, invalid) };
        }
      }
      parts = used === length ? [] : [bytes.subarray(used)];
      length -= used;
    }
    // The body is read to its very end, since that is where its reader checks the digest.
    if (state === "ended" && length > 0) throw invalid("bytes follow its end");
  }
  if (state !== "ended") throw invalid("it ends early");
}

type Invalid = (reason: string, cause?: unknown) => StowageError;

function readHead(bytes: Buffer, invalid: Invalid): { kind: FrameKind; contentBytes: number; storedBytes: number } {
  if (crc32(bytes.subarray(0, 9)) !== bytes.readUInt32LE(9)) throw invalid("the head of a frame is damaged");
  const kind = kindsByNumber.get(bytes[0] as number);
  const contentBytes = bytes.readUInt32LE(1);
  const storedBytes = bytes.readUInt32LE(5);
  if (kind === undefined) throw invalid("a frame has an unknown kind");
  if (contentBytes > frameBytesMax || storedBytes > frameBytesMax + 64 * 1024) throw invalid("a frame is too large");
  return { kind, contentBytes, storedBytes };
}

function decode(stored: Buffer, contentBytes: number, invalid: Invalid): Buffer {
  try {
    const content = zstdDecompressSync(stored, { maxOutputLength: Math.max(1, contentBytes) });
    if (content.length !== contentBytes) throw new RangeError("a frame's content has another length");
    return content;
  } catch (error) {
    throw invalid("a frame is damaged", error);
  }
}
