import { createCipheriv } from "node:crypto";
import { Readable } from "node:stream";

const noiseBytes = 1024 * 1024;
const pieceBytes = 64 * 1024;
const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(
  Buffer.alloc(noiseBytes + pieceBytes),
);

/** The pieces of document `index`: bytes that no compression makes smaller, others in each document, and cheap to make. */
export function* pieces(index: number, sizeBytes: number): Generator<Buffer> {
  for (let at = 0; at < sizeBytes; at += pieceBytes) {
    const start = (at * 7 + index * 101) % noiseBytes;
    yield noise.subarray(start, start + Math.min(pieceBytes, sizeBytes - at));
  }
}

export function stream(index: number, sizeBytes: number): Readable {
  return Readable.from(pieces(index, sizeBytes));
}

/** The whole document, for clients that can't send a stream. */
export function whole(index: number, sizeBytes: number): Buffer {
  return Buffer.concat([...pieces(index, sizeBytes)]);
}
