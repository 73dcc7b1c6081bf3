import type { ByteReader, ByteWriter } from "./bytes.ts";
import { digestsLength, type EntryType, type LayerNode } from "./entry.ts";

const types: readonly EntryType[] = ["file", "dir", "symlink", "char", "block", "fifo", "hardlink"];
const hasLink = 0x08;
const hasXattrs = 0x10;
const hasDigests = 0x20;

/** Writes a node: a byte of type and flags, then the fields that it has. */
export function writeNode(writer: ByteWriter, node: LayerNode): void {
  const flags =
    types.indexOf(node.type) |
    (node.link === undefined ? 0 : hasLink) |
    (node.xattrs === undefined ? 0 : hasXattrs) |
    (node.digests === undefined ? 0 : hasDigests);
  writer.byte(flags);
  writer.varint(node.mode);
  writer.signed(node.uid);
  writer.signed(node.gid);
  writer.signed(node.mtime);
  if (node.type === "file") writer.varint(node.size);
  if (node.digests !== undefined) writer.raw(node.digests);
  if (node.link !== undefined) writer.text(node.link);
  if (node.type === "char" || node.type === "block") {
    writer.varint(node.deviceMajor);
    writer.varint(node.deviceMinor);
  }
  if (node.xattrs !== undefined) {
    const names = Object.keys(node.xattrs).sort();
    writer.varint(names.length);
    for (const name of names) {
      writer.text(name);
      writer.text(node.xattrs[name] as string);
    }
  }
}

/** Reads what {@link writeNode} wrote. */
export function readNode(reader: ByteReader): LayerNode {
  const flags = reader.byte();
  const type = types[flags & 0x07];
  if (type === undefined) throw new RangeError("a record has an unknown type");
  const mode = reader.varint();
  const uid = reader.signed();
  const gid = reader.signed();
  const mtime = reader.signed();
  const size = type === "file" ? reader.varint() : 0;
  const digests = flags & hasDigests ? reader.raw(digestsLength) : undefined;
  const link = flags & hasLink ? reader.text() : undefined;
  const isDevice = type === "char" || type === "block";
  const deviceMajor = isDevice ? reader.varint() : 0;
  const deviceMinor = isDevice ? reader.varint() : 0;
  return {
    type,
    mode,
    uid,
    gid,
    mtime,
    size,
    digests,
    link,
    deviceMajor,
    deviceMinor,
    xattrs: readXattrs(reader, flags),
  };
}

function readXattrs(reader: ByteReader, flags: number): Record<string, string> | undefined {
  if (!(flags & hasXattrs)) return undefined;
  const xattrs: Record<string, string> = Object.create(null);
  for (let count = reader.varint(); count > 0; count--) {
    const name = reader.text();
    xattrs[name] = reader.text();
  }
  return xattrs;
}
