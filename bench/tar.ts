import { closeSync, openSync, readSync, writeSync } from "node:fs";

const BLOCK_BYTES = 512;
const COPY_BYTES = 1024 * 1024;

/**
 * Copies the contents of all regular files of a tar, one after another, into `target`; returns how many bytes that are.
 * For well-formed layers that this bench builds or is given; hostile ones are the product's business.
 */
export function writeRegularFileBytes(tar: string, target: string): number {
  const input = openSync(tar, "r");
  const output = openSync(target, "w");
  const header = Buffer.alloc(BLOCK_BYTES);
  const buffer = Buffer.alloc(COPY_BYTES);
  let position = 0;
  let total = 0;
  let paxSizeBytes: number | undefined;
  try {
    while (readSync(input, header, 0, BLOCK_BYTES, position) === BLOCK_BYTES && header[0] !== 0) {
      position += BLOCK_BYTES;
      const type = String.fromCharCode(header[156] ?? 0);
      const sizeBytes = (type === "x" ? undefined : paxSizeBytes) ?? parseSize(header.subarray(124, 136));
      if (type === "x") {
        const records = Buffer.alloc(sizeBytes);
        readSync(input, records, 0, sizeBytes, position);
        const match = /(?:^|\n)\d+ size=(\d+)\n/.exec(records.toString("latin1"));
        paxSizeBytes = match ? Number(match[1]) : undefined;
      } else {
        paxSizeBytes = undefined;
      }
      if (type === "0" || type === "\0" || type === "7") {
        for (let done = 0; done < sizeBytes; ) {
          const length = readSync(input, buffer, 0, Math.min(COPY_BYTES, sizeBytes - done), position + done);
          if (length === 0) throw new Error(`${tar} ends within a file`);
          writeSync(output, buffer, 0, length);
          done += length;
        }
        total += sizeBytes;
      }
      position += Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    }
  } finally {
    closeSync(input);
    closeSync(output);
  }
  return total;
}

/** Octal digits, or GNU's base 256 when the first bit is set. */
function parseSize(field: Buffer): number {
  if (((field[0] ?? 0) & 0x80) !== 0) return Number(field.readBigUInt64BE(4));
  return Number.parseInt(field.toString("latin1").replaceAll("\0", " ").trim() || "0", 8);
}
