import type { Readable } from "node:stream";
import { WholeBody } from "./driver.ts";

/** Content up to this length is held in memory as a whole: there is less to do, and it is checked before its first byte is handed on. */
export const shortBytesMax = 1024 * 1024;

/** All that the stream has; of a longer one no more than shows that it is longer than `bytesMax`. */
export async function collect(stream: Readable, bytesMax: number): Promise<Buffer> {
  if (stream instanceof WholeBody) return stream.bytes;
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of stream) {
    pieces.push(piece as Buffer);
    length += (piece as Buffer).length;
    if (length > bytesMax) break;
  }
  return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, length);
}

/** Fills `into` with all that the stream has; false when that is more or less. */
export async function collectInto(into: Buffer, stream: Readable): Promise<boolean> {
  let length = 0;
  for await (const piece of stream) {
    if (length + (piece as Buffer).length > into.length) return false;
    length += (piece as Buffer).copy(into, length);
  }
  return length === into.length;
}
