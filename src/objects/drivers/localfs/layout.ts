import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { PhysicalKey } from "../../driver.ts";

/**
 * Names of files. All are made of hexadecimal digits that stowage has drawn: no name that input chose reaches the file system.
 *
 * ```
 * DIR/4f/4f0c…(32 digits).blob               a blob
 * DIR/4f/4f0c…(32 digits).(16 digits).part   what a put is writing, or what one that was killed has left
 * ```
 *
 * One level of 256 directories: a directory of a million files is slow on some file systems, and one that is made costs two more fsyncs, which two
 * levels (65,536 directories) would cost nearly each put.
 */
export const fanOutNames: readonly string[] = Array.from({ length: 256 }, (_, index) =>
  index.toString(16).padStart(2, "0"),
);

const blobSuffix = ".blob";
const partSuffix = ".part";
const partName = /^[0-9a-f]{32}[.][0-9a-f]{16}[.]part$/;
const blobName = /^[0-9a-f]{32}[.]blob$/;

/** Where the files of a key are. */
export function fanOutOf(key: PhysicalKey): string {
  return key.slice(0, 2);
}

export function blobPath(root: string, key: PhysicalKey): string {
  return join(root, fanOutOf(key), `${key}${blobSuffix}`);
}

/** A new name each time: several puts of a key may be at work, in several processes. */
export function newPartPath(root: string, key: PhysicalKey): string {
  return join(root, fanOutOf(key), `${key}.${randomBytes(8).toString("hex")}${partSuffix}`);
}

/** Whether a put of this key writes under such a name. */
export function isPartOf(key: PhysicalKey, name: string): boolean {
  return (
    name.startsWith(`${key}.`) && name.endsWith(partSuffix) && name.length === key.length + 1 + 16 + partSuffix.length
  );
}

/** The key whose put writes under such a name in a fan-out directory; `undefined` for a file of no put. */
export function partKeyOf(fanOut: string, name: string): PhysicalKey | undefined {
  return partName.test(name) && name.startsWith(fanOut) ? (name.slice(0, 32) as PhysicalKey) : undefined;
}

/** The key of a blob's file in a fan-out directory; `undefined` for a file that is none. */
export function keyOf(fanOut: string, name: string): PhysicalKey | undefined {
  return blobName.test(name) && name.startsWith(fanOut)
    ? (name.slice(0, -blobSuffix.length) as PhysicalKey)
    : undefined;
}

/** A new name for an empty file that only tries what the file system can do. */
export function newProbePath(root: string): string {
  return join(root, `probe.${randomBytes(16).toString("hex")}${partSuffix}`);
}

export function isProbeName(name: string): boolean {
  return /^probe\.[0-9a-f]{32}\.part$/.test(name);
}
