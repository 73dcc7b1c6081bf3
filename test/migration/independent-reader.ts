/**
 * Reads what a store has left without the store: rows by SQL, bytes from tables, files and buckets, envelopes as `src/objects/envelope.ts` describes
 * them, digests by `sha256sum`. Imports nothing of the product.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { GetObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { Client } from "pg";

interface Row {
  readonly id: string;
  readonly driver: string;
  readonly directory: string | null;
  readonly bucket_name: string | null;
  readonly physical_key: string;
  readonly state: string;
  readonly name: string;
  readonly account: string;
  readonly bucket: string;
  readonly object_key: string;
  readonly codec: string;
  readonly content_digest: string;
  readonly content_bytes: string;
  readonly stored_digest: string;
  readonly stored_bytes: string;
  readonly is_pointed: boolean;
}

export interface Bucket {
  readonly url: string;
  readonly access_key: string;
  readonly secret_key: string;
  readonly bucket: string;
}

export interface Finding {
  /** Each object by its name: the digest of its content as its bytes really are, and the place that keeps it. */
  readonly objects: ReadonlyMap<string, { readonly digest: string; readonly place: string }>;
  readonly violations: readonly string[];
}

const markerKey = /^0{24}/;

/** After everything has been reaped: only what lives may be left. */
export async function readEverything(
  dataDirectory: string,
  directories: readonly string[],
  buckets: readonly Bucket[],
): Promise<Finding> {
  const client = new Client({
    host: join(dataDirectory, "postgres"),
    port: 5432,
    user: "stowage",
    database: "postgres",
  });
  await client.connect();
  const scratch = mkdtempSync(join(tmpdir(), "stowage-reader-"));
  const clients = buckets.map((place) => ({ place, s3: s3Of(place) }));
  try {
    const { rows } = await client.query<Row>(`
      select l.id, b.driver, b.settings ->> 'archive_data_dir' as directory, b.settings ->> 'bucket' as bucket_name, l.physical_key, l.state,
        l.account || '/' || l.bucket || '/' || l.object_key as name, l.account, l.bucket, l.object_key, l.codec, l.content_digest,
        l.content_bytes, l.stored_digest, l.stored_bytes,
        exists (select 1 from objects o where o.location_id = l.id and (o.account, o.bucket, o.key) = (l.account, l.bucket, l.object_key))
          as is_pointed
      from locations l join backends b on b.id = l.backend_id`);
    const violations: string[] = [];
    const { rows: astray } = await client.query<{ key: string }>(
      "select key from objects where location_id not in (select id from locations where state = 'live')",
    );
    for (const { key } of astray) violations.push(`${key} points to nothing that lives`);
    const expected = new Map<string, { row: Row; what: "stored" | "content" }>();
    const held = new Set<string>();
    for (const row of rows) {
      held.add(`${placeOf(row)} ${row.physical_key}`);
      if (row.state !== "live" || !row.is_pointed)
        violations.push(`location ${row.id} is ${row.state} though all is over`);
      try {
        const stored = await bytesOf(row, client, clients);
        const content = unpack(row, stored);
        for (const [what, bytes] of [
          ["stored", stored],
          ["content", content],
        ] as const) {
          const path = join(scratch, `${row.id}-${what}`);
          writeFileSync(path, bytes);
          expected.set(path, { row, what });
        }
      } catch (error) {
        violations.push(`${row.name} at location ${row.id}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    const objects = new Map<string, { digest: string; place: string }>();
    for (const [path, digest] of digestsOf([...expected.keys()])) {
      const { row, what } = expected.get(path) as { row: Row; what: "stored" | "content" };
      const recorded = what === "stored" ? row.stored_digest : row.content_digest;
      if (recorded !== `sha256:${digest}`) violations.push(`${row.name}: ${what} is ${digest} instead of ${recorded}`);
      if (what === "content" && row.is_pointed)
        objects.set(row.name, { digest: `sha256:${digest}`, place: placeOf(row) });
    }
    for await (const [place, key] of everythingHeld(client, directories, clients)) {
      if (!markerKey.test(key) && !held.has(`${place} ${key}`)) violations.push(`${key} at ${place} has no row`);
    }
    return { objects, violations };
  } finally {
    await client.end();
    for (const { s3 } of clients) s3.destroy();
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface BucketClient {
  readonly place: Bucket;
  readonly s3: S3Client;
}

function s3Of({ url, access_key, secret_key }: Bucket): S3Client {
  const credentials = { accessKeyId: access_key, secretAccessKey: secret_key };
  return new S3Client({ endpoint: url, region: "us-east-1", forcePathStyle: true, credentials });
}

function placeOf(row: Row): string {
  return row.driver === "db" ? "db" : row.driver === "s3" ? `s3 ${row.bucket_name}` : `localfs ${row.directory}`;
}

async function bytesOf(row: Row, client: Client, clients: readonly BucketClient[]): Promise<Buffer> {
  if (row.driver === "localfs") {
    return readFileSync(join(row.directory ?? "", row.physical_key.slice(0, 2), `${row.physical_key}.blob`));
  }
  if (row.driver === "s3") {
    const found = clients.find(({ place }) => place.bucket === row.bucket_name);
    if (found === undefined) throw new Error(`no bucket ${row.bucket_name}`);
    const Key = `${row.physical_key.slice(0, 2)}/${row.physical_key}`;
    const { Body } = await found.s3.send(new GetObjectCommand({ Bucket: found.place.bucket, Key }));
    return Buffer.from((await Body?.transformToByteArray()) ?? []);
  }
  const { rows } = await client.query<{ position: number; bytes: Buffer }>(
    "select position, bytes from object_chunks where physical_key = $1 order by position",
    [row.physical_key],
  );
  if (rows.some(({ position }, index) => position !== index)) throw new Error("a chunk is missing");
  return Buffer.concat(rows.map(({ bytes }) => bytes));
}

/** The content, as far as the envelope says the same as the row. */
function unpack(row: Row, stored: Buffer): Buffer {
  const expect = (what: string, is: unknown, should: unknown) => {
    if (String(is) !== String(should)) throw new Error(`${what} is ${is} instead of ${should}`);
  };
  expect("stored size", stored.length, row.stored_bytes);
  expect("start", stored.subarray(0, 8).toString("latin1"), "STOWOBJ1");
  const start = 12 + stored.readUInt32LE(8);
  const header = JSON.parse(stored.subarray(12, start).toString()) as Record<string, unknown>;
  expect("header", [header.account, header.bucket, header.key], [row.account, row.bucket, row.object_key]);
  expect("header's location", header.location, row.id);
  expect("header's codec", header.codec, row.codec);
  expect("end", stored.subarray(-8).toString("latin1"), "STOWEND1");
  const payload = stored.subarray(start, -56);
  const content =
    row.codec === "gzip" ? gunzipSync(payload) : row.codec === "zstd" ? zstdDecompressSync(payload) : payload;
  expect("content size", content.length, row.content_bytes);
  expect("digest in the trailer", `sha256:${stored.subarray(-56, -24).toString("hex")}`, row.content_digest);
  return content;
}

function digestsOf(paths: readonly string[]): ReadonlyMap<string, string> {
  const digests = new Map<string, string>();
  for (let at = 0; at < paths.length; at += 500) {
    const output = execFileSync("sha256sum", paths.slice(at, at + 500), { encoding: "utf8" });
    for (const line of output.trimEnd().split("\n")) digests.set(line.slice(66), line.slice(0, 64));
  }
  return digests;
}

/** Whoever was killed before it had made the bucket has left nothing there. */
function nothingWithoutBucket(error: unknown): {
  readonly Contents?: undefined;
  readonly NextContinuationToken?: undefined;
} {
  if (error instanceof Error && error.name === "NoSuchBucket") return {};
  throw error;
}

async function* everythingHeld(
  client: Client,
  directories: readonly string[],
  clients: readonly BucketClient[],
): AsyncGenerator<readonly [place: string, key: string]> {
  const { rows } = await client.query<{ key: string }>(
    "select physical_key as key from object_blobs union select physical_key from object_chunks",
  );
  for (const { key } of rows) yield ["db", key];
  for (const directory of directories) {
    for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
      const isProbe = entry.name.startsWith("probe.");
      if (entry.isFile() && !isProbe) yield [`localfs ${directory}`, entry.name.replace(/[.]blob$/, "")];
    }
  }
  for (const { place, s3 } of clients) {
    for (let token: string | undefined; ; ) {
      const page = await s3
        .send(new ListObjectsV2Command({ Bucket: place.bucket, ContinuationToken: token }))
        .catch(nothingWithoutBucket);
      for (const { Key } of page.Contents ?? []) yield [`s3 ${place.bucket}`, Key?.slice(3) ?? ""];
      token = page.NextContinuationToken;
      if (token === undefined) break;
    }
  }
}
