/**
 * Reads what a store has left without the store: rows by SQL, bytes from files and tables, envelopes as `src/objects/envelope.ts` describes them.
 * Nothing here is shared with the code that wrote it.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { type RawBuilder, sql } from "kysely";
import type { Database } from "../../src/db/index.ts";

interface Row {
  readonly id: number;
  readonly driver: string;
  readonly directory: string | null;
  readonly physical_key: string;
  readonly state: string;
  readonly account: string;
  readonly bucket: string;
  readonly object_key: string;
  readonly codec: string | null;
  readonly content_digest: string | null;
  readonly content_bytes: number | null;
  readonly stored_digest: string | null;
  readonly stored_bytes: number | null;
}

export interface Finding {
  /** Each object by its name, and the digest of its content as its bytes really are. */
  readonly objects: ReadonlyMap<string, string>;
  readonly violations: readonly string[];
}

export interface Look {
  /** Of the file backends. */
  readonly directories: readonly string[];
  /** Every lease and grace period is over and the reaper has done all it can. */
  readonly isReaped: boolean;
}

const markerName = /^0{24}[0-9a-f]{8}[.]blob$/;
/** Empty files by which the driver finds out what the file system can do: one whose removal fails stays. */
const probeName = /^probe[.][0-9a-f]{32}[.]part$/;

export async function readIndependently(database: Database, { directories, isReaped }: Look): Promise<Finding> {
  const violations: string[] = [];
  const rows = await ask<Row>(
    database,
    sql`select l.id, b.driver, b.settings ->> 'archive_data_dir' as directory, l.physical_key, l.state, l.account, l.bucket,
          l.object_key, l.codec, l.content_digest, l.content_bytes, l.stored_digest, l.stored_bytes
        from locations l join backends b on b.id = l.backend_id`,
  );
  const pointers = await ask<{ account: string; bucket: string; key: string; location_id: number }>(
    database,
    sql`select account, bucket, key, location_id from objects`,
  );
  const byId = new Map(rows.map((row) => [row.id, row]));
  const pointed = new Set(pointers.map(({ location_id }) => location_id));
  const objects = new Map<string, string>();
  for (const { account, bucket, key, location_id } of pointers) {
    const name = `${account}/${bucket}/${key}`;
    const row = byId.get(location_id);
    if (row?.state !== "live") violations.push(`${name} points to a location that is ${row?.state ?? "gone"}`);
    if (row === undefined) continue;
    if (`${row.account}/${row.bucket}/${row.object_key}` !== name) violations.push(`${name} points to another's place`);
    try {
      objects.set(name, contentOf(row, await bytesAt(database, row)));
    } catch (error) {
      violations.push(`${name} at location ${row.id}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  for (const row of rows) {
    if (row.state === "live" && !pointed.has(row.id)) violations.push(`location ${row.id} is live without a pointer`);
    // Readers may still be there.
    if (row.state === "retired" || row.state === "kept") {
      try {
        contentOf(row, await bytesAt(database, row));
      } catch (error) {
        violations.push(
          `location ${row.id} is ${row.state}: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
    if (isReaped && row.state !== "live") violations.push(`location ${row.id} is ${row.state} though all is over`);
  }
  for (const directory of directories) violations.push(...strangeFiles(directory, rows, isReaped));
  violations.push(...(await strangeRows(database, rows, isReaped)));
  return { objects, violations };
}

async function bytesAt(database: Database, row: Row): Promise<Buffer> {
  if (row.driver !== "db") {
    const { directory, physical_key } = row;
    return readFileSync(join(directory ?? "", physical_key.slice(0, 2), `${physical_key}.blob`));
  }
  const chunks = await ask<{ position: number; bytes: Buffer }>(
    database,
    sql`select position, bytes from object_chunks where physical_key = ${row.physical_key} order by position`,
  );
  const blobs = await ask<{ bytes: number }>(
    database,
    sql`select bytes from object_blobs where physical_key = ${row.physical_key}`,
  );
  const bytes = Buffer.concat(chunks.map((chunk) => chunk.bytes));
  if (chunks.some(({ position }, index) => position !== index)) throw new Error("a chunk is missing");
  if (blobs[0]?.bytes !== bytes.length)
    throw new Error(`the blob says ${blobs[0]?.bytes}, it has ${bytes.length} bytes`);
  return bytes;
}

/** The digest of the content, when all of it is as it was recorded. */
function contentOf(row: Row, stored: Buffer): string {
  const expect = (what: string, is: unknown, shouldBe: unknown) => {
    if (String(is) !== String(shouldBe)) throw new Error(`${what} is ${is} instead of ${shouldBe}`);
  };
  expect("stored size", stored.length, row.stored_bytes);
  expect("stored digest", sha256(stored), row.stored_digest);
  expect("start", stored.subarray(0, 8).toString("latin1"), "STOWOBJ1");
  const payloadStart = 12 + stored.readUInt32LE(8);
  const header = JSON.parse(stored.subarray(12, payloadStart).toString()) as Record<string, unknown>;
  for (const name of ["account", "bucket", "codec"] as const) expect(`header's ${name}`, header[name], row[name]);
  expect("header's key", header.key, row.object_key);
  expect("header's location", header.location, row.id);
  const trailer = stored.subarray(-56);
  expect("end", trailer.subarray(48).toString("latin1"), "STOWEND1");
  const payload = stored.subarray(payloadStart, -56);
  expect("payload's size", trailer.readBigUInt64LE(40), payload.length);
  const content =
    row.codec === "gzip" ? gunzipSync(payload) : row.codec === "zstd" ? zstdDecompressSync(payload) : payload;
  expect("content's size", content.length, row.content_bytes);
  expect("content's size in the trailer", trailer.readBigUInt64LE(32), content.length);
  expect("content's digest", sha256(content), row.content_digest);
  expect("content's digest in the trailer", `sha256:${trailer.subarray(0, 32).toString("hex")}`, row.content_digest);
  return sha256(content);
}

/** Files that no row explains, or that should have gone. */
function strangeFiles(directory: string, rows: readonly Row[], isReaped: boolean): string[] {
  const keys = new Set(rows.filter((row) => row.directory === directory).map((row) => row.physical_key));
  const strange: string[] = [];
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || markerName.test(entry.name) || probeName.test(entry.name)) continue;
    const key = entry.name.slice(0, 32);
    if (!keys.has(key)) strange.push(`${entry.name} in ${directory} has no row`);
    else if (isReaped && entry.name !== `${key}.blob`) strange.push(`${entry.name} is left in ${directory}`);
  }
  return strange;
}

async function strangeRows(database: Database, rows: readonly Row[], isReaped: boolean): Promise<string[]> {
  const keys = new Set(rows.filter(({ driver }) => driver === "db").map((row) => row.physical_key));
  const blobs = await ask<{ physical_key: string }>(database, sql`select physical_key from object_blobs`);
  const chunks = await ask<{ physical_key: string }>(database, sql`select distinct physical_key from object_chunks`);
  const strange = [
    ...blobs
      .filter(({ physical_key }) => !keys.has(physical_key))
      .map((each) => `blob ${each.physical_key} has no row`),
    ...chunks
      .filter((each) => !keys.has(each.physical_key))
      .map((each) => `chunks of ${each.physical_key} have no row`),
  ];
  const whole = new Set(blobs.map(({ physical_key }) => physical_key));
  const parts = chunks.filter(({ physical_key }) => !whole.has(physical_key));
  return isReaped ? [...strange, ...parts.map((each) => `chunks of ${each.physical_key} are left`)] : strange;
}

async function ask<T>(database: Database, question: RawBuilder<unknown>): Promise<readonly T[]> {
  return (await question.execute(database.sql)).rows as readonly T[];
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
