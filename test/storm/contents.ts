import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { ObjectBody } from "../../src/objects/index.ts";
import { createRandom } from "../fault/random.ts";

/** What is written; the same serial and size give the same bytes, so that nothing has to be kept. */
export interface Content {
  readonly serial: number;
  readonly bytes: Buffer;
  /** `sha256:…` */
  readonly digest: string;
}

export function contentOf(serial: number, sizeBytes: number): Content {
  const bytes = Buffer.alloc(sizeBytes, `content ${serial}, line after line; `);
  // Every second one is worth compressing.
  if (serial % 2 === 0) createRandom(serial).bytes(sizeBytes).copy(bytes, Math.min(40, sizeBytes));
  return { serial, bytes, digest: digestOf(bytes) };
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

const pieceBytes = 100_000;

/** @param failAfter the body fails after so many bytes */
export function bodyOf({ bytes }: Content, isSizeKnown: boolean, failAfter?: number): ObjectBody {
  async function* pieces() {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      if (failAfter !== undefined && at + pieceBytes > failAfter) throw new RangeError("the body fails");
      yield bytes.subarray(at, at + pieceBytes);
    }
    if (failAfter !== undefined) throw new RangeError("the body fails");
  }
  return { open: async () => Readable.from(pieces()), ...(isSizeKnown ? { sizeBytes: bytes.length } : {}) };
}
