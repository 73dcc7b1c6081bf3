/**
 * Reads what lies in model backends without the product: rows by SQL, envelopes as `src/objects/envelope.ts` describes them. Nothing here is shared
 * with the code that wrote it.
 */
import { createHash } from "node:crypto";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { sql } from "kysely";
import type { World } from "./world.ts";

export interface LocationRow {
  readonly id: number;
  readonly place: string;
  readonly physical_key: string;
  readonly state: string;
  readonly account: string;
  readonly bucket: string;
  readonly object_key: string;
  readonly codec: string | null;
  readonly content_digest: string | null;
  readonly stored_digest: string | null;
  readonly stored_bytes: number | null;
  readonly writer: string | null;
  readonly migration_id: number | null;
}

export interface Seen {
  /** By name: digest of the content as its bytes really are, or what is wrong with them; version; where it lies. */
  readonly objects: ReadonlyMap<
    string,
    { readonly value: string; readonly version: number; readonly row: LocationRow }
  >;
  readonly rows: ReadonlyMap<number, LocationRow>;
  readonly violations: readonly string[];
}

export async function readModel({ eye, places }: World, damagedLocation?: number): Promise<Seen> {
  const located =
    await sql<LocationRow>`select l.id, b.settings ->> 'place' as place, l.physical_key, l.state, l.account, l.bucket,
      l.object_key, l.codec, l.content_digest, l.stored_digest, l.stored_bytes, l.writer, l.migration_id
    from locations l join backends b on b.id = l.backend_id`.execute(eye.sql);
  const pointers = await sql<{ name: string; version: number; location_id: number }>`
    select account || '/' || bucket || '/' || key as name, version, location_id from objects`.execute(eye.sql);
  const violations: string[] = [];
  const rows = new Map(located.rows.map((row) => [row.id, row]));
  const blobs = new Map(places.map((place) => [place.place, place.blobs as ReadonlyMap<string, Buffer>]));
  const read = (row: LocationRow) => contentOf(row, blobs.get(row.place)?.get(row.physical_key));
  const objects = new Map<string, { value: string; version: number; row: LocationRow }>();
  const pointed = new Set<number>();
  for (const { name, version, location_id } of pointers.rows) {
    const row = rows.get(location_id);
    pointed.add(location_id);
    if (row?.state !== "live")
      violations.push(`${name} points to location ${location_id}, which is ${row?.state ?? "gone"}`);
    if (row !== undefined) objects.set(name, { value: read(row), version, row });
  }
  for (const row of rows.values()) {
    if (row.state === "live" && !pointed.has(row.id)) violations.push(`location ${row.id} is live without a pointer`);
    // Readers may still be there.
    const isToBeReadable = (row.state === "retired" || row.state === "kept") && row.id !== damagedLocation;
    if (isToBeReadable && read(row) !== row.content_digest) {
      violations.push(`location ${row.id} is ${row.state}: ${read(row)}`);
    }
  }
  const explained = new Set([...rows.values()].map((row) => `${row.place}/${row.physical_key}`));
  for (const place of places) {
    for (const key of place.keys) {
      if (!explained.has(`${place.place}/${key}`)) violations.push(`${key} at ${place.place} has no row`);
    }
  }
  return { objects, rows, violations };
}

function contentOf(row: LocationRow, stored: Buffer | undefined): string {
  if (stored === undefined) return "missing";
  if (sha256(stored) !== row.stored_digest) return `other bytes: ${stored.length} instead of ${row.stored_bytes}`;
  const start = 12 + stored.readUInt32LE(8);
  const header = JSON.parse(stored.subarray(12, start).toString()) as Record<string, unknown>;
  const names = [header.account, header.bucket, header.key, header.location, header.codec];
  const expected = [row.account, row.bucket, row.object_key, row.id, row.codec];
  if (names.join() !== expected.join()) return `its header says ${names.join()} instead of ${expected.join()}`;
  const payload = stored.subarray(start, -56);
  const isPacked = row.codec === "zstd" || row.codec === "gzip";
  const content = isPacked ? (row.codec === "gzip" ? gunzipSync : zstdDecompressSync)(payload) : payload;
  const digest = sha256(content);
  return digest === row.content_digest ? digest : `content ${digest} instead of ${row.content_digest}`;
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
