import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { StowageError } from "../errors/index.ts";
import { ByteQueue, freeBytes } from "./bytes.ts";

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
  /** Valid until the next frame is asked for. */
  readonly content: Buffer;
}

const headBytes = 13;
/** No frame is larger: writers split, readers refuse. */
const frameBytesMax = 64 * 1024 * 1024;
const kindsByNumber: ReadonlyMap<number, FrameKind> = new Map(
  Object.entries(frameKinds).map(([kind, number]) => [number, kind as FrameKind]),
);

const zstdOptions = { params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_checksumFlag]: 1 } };
/** Where zlib is not told another size. */
const zlibBufferBytes = 16 * 1024;

/** The frame has its memory for itself. */
export function encodeFrame(kind: FrameKind, content: Buffer): Buffer {
  const stored = compress(content);
  const frame = Buffer.allocUnsafeSlow(headBytes + stored.length);
  frame[0] = frameKinds[kind];
  frame.writeUInt32LE(content.length, 1);
  frame.writeUInt32LE(stored.length, 5);
  frame.writeUInt32LE(crc32(frame.subarray(0, 9)), 9);
  stored.copy(frame, headBytes);
  freeBytes(stored, roomFor(content));
  return frame;
}

/** In one buffer: zlib's own smaller ones would be left to the collector, which comes when small objects have filled the heap, not large buffers. */
function compress(content: Buffer): Buffer {
  return zstdCompressSync(content, { ...zstdOptions, chunkSize: roomFor(content) });
}

function roomFor(content: Buffer): number {
  return Math.max(zlibBufferBytes, content.length);
}

/**
 * The frames of a document, up to and without `end`. A piece of the body is not looked at any more when the next one is asked for.
 * @throws StowageError `LAYER_DOCUMENT_INVALID`
 */
export async function* readFrames(body: AsyncIterable<Buffer>, magic: string, document: string): AsyncGenerator<Frame> {
  const invalid = (reason: string, cause?: unknown) =>
    new StowageError("LAYER_DOCUMENT_INVALID", { document, reason }, cause === undefined ? {} : { cause });
  let state: "magic" | "frames" | "ended" = "magic";
  let needed = magic.length;
  const bytes = new ByteQueue();
  for await (const piece of body) {
    bytes.add(piece);
    while (state !== "ended" && bytes.length >= needed) {
      if (state === "magic") {
        if (bytes.take(needed).toString("latin1") !== magic) throw invalid("it is no such document");
        state = "frames";
        needed = headBytes;
        continue;
      }
      const head = readHead(bytes.peek(headBytes), invalid);
      needed = headBytes + head.storedBytes;
      if (bytes.length < needed) continue;
      const stored = bytes.take(needed).subarray(headBytes);
      needed = headBytes;
      if (head.kind === "end") state = "ended";
      else yield* decoded(head.kind, stored, head.contentBytes, invalid);
    }
    // The body is read to its very end, since that is where its reader checks the digest.
    if (state === "ended" && bytes.length > 0) throw invalid("bytes follow its end");
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

function* decoded(kind: FrameKind, stored: Buffer, contentBytes: number, invalid: Invalid): Generator<Frame> {
  // One byte more than there should be: a buffer that is full makes zlib begin another.
  const chunkSize = Math.max(zlibBufferBytes, contentBytes + 1);
  const content = decode(stored, contentBytes, chunkSize, invalid);
  yield { kind, content };
  freeBytes(content, chunkSize);
}

function decode(stored: Buffer, contentBytes: number, chunkSize: number, invalid: Invalid): Buffer {
  try {
    const content = zstdDecompressSync(stored, { chunkSize, maxOutputLength: Math.max(1, contentBytes) });
    if (content.length !== contentBytes) throw new RangeError("a frame's content has another length");
    return content;
  } catch (error) {
    throw invalid("a frame is damaged", error);
  }
}
