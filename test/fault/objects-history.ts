import type { ObjectRef } from "../../src/objects/index.ts";

/** What the victim writes, so that whoever looks at what it left knows it. */
export const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };

/** Versions 1 and 5 are one chunk, the others take several statements of the db driver. */
export function piecesOf(version: number): number {
  return version === 1 || version === 5 ? 1 : 40;
}

/** Whether the length of a version is told beforehand: what is short then goes in one statement. */
export function isLengthKnown(version: number): boolean {
  return version === 5;
}

export function bodyPiece(version: number): Buffer {
  return Buffer.alloc(100_000, `version ${version} `);
}

export function bodyOfVersion(version: number): Buffer {
  return Buffer.concat(Array.from({ length: piecesOf(version) }, () => bodyPiece(version)));
}

/** The version that is visible after each operation of the victim; 0 is none. */
export const visibleAfter: readonly (readonly [operation: string, version: number])[] = [
  ["put 1", 1],
  ["put 2", 2],
  ["reap 1", 2],
  ["put 3", 3],
  ["retire", 0],
  ["reap 2", 0],
  ["reap 3", 0],
  ["put 4", 4],
  ["put 5", 5],
];
