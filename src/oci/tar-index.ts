import type { FileHandle } from "node:fs/promises";
import { posix } from "node:path";
import { StowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { unreadable } from "./files.ts";

/** A member of an archive, as far as an image source is concerned. */
export type TarMember =
  | { readonly kind: "file"; readonly offset: number; readonly size: number }
  | { readonly kind: "link"; readonly target: string }
  | { readonly kind: "other" };

const BLOCK = 512;
/** An image has as many members as it has layers, times four in the oldest form. */
const MEMBERS_MAX = 200_000;
/** Longer names are none of an image source's. */
const NAME_BYTES_MAX = 1024;
const LINKS_MAX = 10;

/**
 * Finds the members of an uncompressed archive by its headers alone, in one walk that skips all contents.
 * A member that comes again replaces the earlier one, as it does when unpacked; names lose their leading `./`.
 * @see POSIX pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"
 * @param headerBytesMax the largest pax or long-name record
 * @throws StowageError `IMAGE_SOURCE_UNREADABLE`, `LIMIT_EXCEEDED`
 */
export async function indexTar(
  handle: FileHandle,
  source: string,
  headerBytesMax: number,
  call: Call,
): Promise<ReadonlyMap<string, TarMember>> {
  const members = new Map<string, TarMember>();
  const fileSize = (await handle.stat()).size;
  const header = Buffer.alloc(BLOCK);
  let position = 0;
  let count = 0;
  let next: { path?: string; link?: string; size?: number; isSparse?: boolean } = {};

  for (;;) {
    throwIfAborted(call);
    if (position === fileSize && count > 0) return members;
    await readExactly(handle, header, position, source);
    // A block of zeros ends the archive; what follows it is padding.
    if (header.every((byte) => byte === 0)) return members;
    if (!hasRightChecksum(header)) {
      throw unreadable(source, count === 0 ? "it is not a tar archive" : `damaged tar header at byte ${position}`);
    }
    count++;
    if (count > MEMBERS_MAX) {
      throw new StowageError("LIMIT_EXCEEDED", { limit: "archiveMembersMax", max: MEMBERS_MAX, where: source });
    }
    const type = String.fromCharCode(header[156] ?? 0);
    const isExtension = "xgLK".includes(type);
    // Links and the like have no content, whatever their size says.
    const hasContent = isExtension || !"123456".includes(type);
    const size = hasContent ? ((isExtension ? undefined : next.size) ?? parseNumber(header.subarray(124, 136))) : 0;
    const offset = position + BLOCK;
    const end = offset + Math.ceil(size / BLOCK) * BLOCK;
    if (!Number.isSafeInteger(end) || offset + size > fileSize) {
      throw unreadable(source, `truncated: the member at byte ${position} ends after the archive`);
    }
    position = Math.min(end, fileSize);

    if (isExtension) {
      if (size > headerBytesMax) {
        throw new StowageError("LIMIT_EXCEEDED", {
          limit: "entryHeaderBytesMax",
          max: headerBytesMax,
          found: size,
          where: source,
        });
      }
      const data = Buffer.alloc(size);
      await readExactly(handle, data, offset, source);
      if (type === "L") next.path = cString(data);
      else if (type === "K") next.link = cString(data);
      else if (type === "x") next = { ...next, ...parsePax(data, source) };
      continue;
    }

    const path = normalize(next.path ?? ustarName(header));
    const link = next.link ?? cString(header.subarray(157, 257));
    if (path.length > 0 && Buffer.byteLength(path) <= NAME_BYTES_MAX) {
      members.set(path, memberOf(type, path, link, offset, size, next.isSparse ?? false));
    }
    next = {};
  }
}

/** The member that `path` means, links within the archive followed; `undefined` if there is none. */
export function findMember(members: ReadonlyMap<string, TarMember>, path: string): TarMember | undefined {
  let member = members.get(path);
  for (let hops = 0; member?.kind === "link"; hops++) {
    if (hops >= LINKS_MAX) return undefined;
    member = members.get(member.target);
  }
  return member;
}

function memberOf(
  type: string,
  path: string,
  link: string,
  offset: number,
  size: number,
  isSparse: boolean,
): TarMember {
  if (isSparse) return { kind: "other" };
  switch (type) {
    case "0":
    case "\0":
    case "7":
      return { kind: "file", offset, size };
    case "1":
      return { kind: "link", target: normalize(link) };
    case "2": {
      // A target that leads out of the archive meets no member there.
      const target = link.startsWith("/") ? link : posix.join(posix.dirname(path), link);
      return { kind: "link", target: normalize(target) };
    }
    default:
      return { kind: "other" };
  }
}

async function readExactly(handle: FileHandle, into: Buffer, position: number, source: string): Promise<void> {
  for (let filled = 0; filled < into.length; ) {
    const { bytesRead } = await handle.read(into, filled, into.length - filled, position + filled);
    if (bytesRead === 0) throw unreadable(source, "truncated: the archive ends within a member");
    filled += bytesRead;
  }
}

function hasRightChecksum(header: Buffer): boolean {
  const claimed = parseNumber(header.subarray(148, 156));
  let sum = 0;
  // The checksum's own field counts as spaces.
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 0x20 : (header[at] ?? 0);
  return sum === claimed;
}

/** An octal number, or GNU's base-256; not a number where it is neither, which no check accepts. */
function parseNumber(field: Buffer): number {
  const first = field[0] ?? 0;
  if (first & 0x80) {
    if (first & 0x40) return Number.NaN;
    return field.subarray(1).reduce((value, byte) => value * 256 + byte, first & 0x3f);
  }
  const digits = field
    .toString("latin1")
    .replace(/[\0 ]+$/, "")
    .trimStart();
  return digits === "" ? 0 : /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number.NaN;
}

function ustarName(header: Buffer): string {
  const name = cString(header.subarray(0, 100));
  // GNU's own format keeps times where ustar has the prefix.
  const isUstar = header.toString("latin1", 257, 263) === "ustar\0";
  const prefix = isUstar ? cString(header.subarray(345, 500)) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end === -1 ? bytes.length : end);
}

function normalize(path: string): string {
  return path.replace(/^(?:\.?\/+)*(?=[^/])/, (lead) => (lead.startsWith("/") ? "/" : "")).replace(/\/+/g, "/");
}

function parsePax(data: Buffer, source: string): { path?: string; link?: string; size?: number; isSparse?: boolean } {
  const found: { path?: string; link?: string; size?: number; isSparse?: boolean } = {};
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space === -1 ? "" : data.toString("latin1", at, space);
    const length = /^[0-9]{1,9}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = data.indexOf(0x3d, space);
    if (end <= space || end > data.length || data[end - 1] !== 0x0a || equals === -1 || equals >= end) {
      throw unreadable(source, "damaged pax record");
    }
    const key = data.toString("utf8", space + 1, equals);
    const value = data.toString("utf8", equals + 1, end - 1);
    if (key === "path") found.path = value;
    else if (key === "linkpath") found.link = value;
    else if (key === "size") {
      const size = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
      if (!Number.isSafeInteger(size)) throw unreadable(source, "damaged pax record: size");
      found.size = size;
    } else if (key.startsWith("GNU.sparse.")) found.isSparse = true;
    at = end;
  }
  return found;
}
