import { Buffer } from "node:buffer";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** A value of a header tag with its rpm type. */
export type TagValue =
  | { readonly type: "int8" | "int16" | "int32" | "int64"; readonly values: readonly number[] }
  | { readonly type: "string" | "strings" | "translated"; readonly values: readonly string[] }
  | { readonly type: "binary"; readonly bytes: Buffer };

export type Tags = readonly (readonly [tag: number, value: TagValue])[];

const TYPES = { int8: 2, int16: 3, int32: 4, int64: 5, string: 6, binary: 7, strings: 8, translated: 9 } as const;
const WIDTHS: Readonly<Record<string, number>> = { int8: 1, int16: 2, int32: 4, int64: 8 };

/** A header blob as rpm's database keeps it: index entries in the order given, data aligned to its type. */
export function writeHeader(tags: Tags): Buffer {
  const index = Buffer.alloc(8 + tags.length * 16);
  const data: Buffer[] = [];
  let length = 0;
  tags.forEach(([tag, value], entry) => {
    const width = WIDTHS[value.type] ?? 1;
    const padding = (width - (length % width)) % width;
    const bytes = bytesOf(value);
    index.writeUInt32BE(tag, 8 + entry * 16);
    index.writeUInt32BE(TYPES[value.type], 12 + entry * 16);
    index.writeUInt32BE(length + padding, 16 + entry * 16);
    index.writeUInt32BE(value.type === "binary" ? bytes.length : value.values.length, 20 + entry * 16);
    data.push(Buffer.alloc(padding), bytes);
    length += padding + bytes.length;
  });
  index.writeUInt32BE(tags.length, 0);
  index.writeUInt32BE(length, 4);
  return Buffer.concat([index, ...data]);
}

function bytesOf(value: TagValue): Buffer {
  if (value.type === "binary") return value.bytes;
  if (value.type === "string" || value.type === "strings" || value.type === "translated") {
    return Buffer.concat(value.values.map((text) => Buffer.from(`${text}\0`)));
  }
  const width = WIDTHS[value.type] ?? 1;
  const bytes = Buffer.alloc(width * value.values.length);
  value.values.forEach((number, at) => {
    if (width === 8) bytes.writeBigUInt64BE(BigInt(number), at * 8);
    else bytes.writeUIntBE(Number(number), at * width, width);
  });
  return bytes;
}

export const string = (text: string): TagValue => ({ type: "string", values: [text] });
export const strings = (...values: string[]): TagValue => ({ type: "strings", values });
export const int16 = (...values: number[]): TagValue => ({ type: "int16", values });
export const int32 = (...values: number[]): TagValue => ({ type: "int32", values });

export const rpmSchema = `CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);
  CREATE TABLE IF NOT EXISTS 'Name' (key TEXT NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL, FOREIGN KEY (hnum) REFERENCES 'Packages'(hnum));
  CREATE INDEX IF NOT EXISTS 'Name_key_idx' ON 'Name'(key ASC);`;

/** A database file, and its log, as they are while `database` is still open: what a killed writer leaves. */
export function sqliteFiles(write: (database: DatabaseSync) => void): { file: Buffer; wal: Buffer | undefined } {
  const directory = mkdtempSync(join(tmpdir(), "stowage-test-"));
  try {
    const path = join(directory, "rpmdb.sqlite");
    const database = new DatabaseSync(path);
    try {
      write(database);
      const wal = `${path}-wal`;
      return { file: readFileSync(path), wal: existsSync(wal) ? readFileSync(wal) : undefined };
    } finally {
      database.close();
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** A database of these header blobs, as rpm makes it but without a log. */
export function rpmDatabase(blobs: readonly Buffer[]): Buffer {
  return sqliteFiles((database) => {
    database.exec(rpmSchema);
    insertBlobs(database, blobs);
  }).file;
}

export function insertBlobs(database: DatabaseSync, blobs: readonly Buffer[]): void {
  const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
  for (const blob of blobs) insert.run(blob);
}
