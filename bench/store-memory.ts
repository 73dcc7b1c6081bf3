import { createCipheriv, createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { openDatabase } from "../src/db/index.ts";
import { DatabaseDriver } from "../src/objects/drivers/db/index.ts";
import { openObjectStore } from "../src/objects/index.ts";
import { createCall } from "../src/runtime/index.ts";
import { sectionsOf } from "../test/objects/sections.ts";
import { megabytes } from "./report.ts";

const call = createCall();
const pieceBytes = 64 * 1024;

/**
 * One large document through the object store: `npm run bench -- store [MEGABYTES]`, by default 1,000. Prints what the process took at most, and
 * how fast it went; beside it, how fast the same bytes are made and digested once, which nothing can beat.
 */
export async function benchStore([megabytesOption = "1000"]: readonly string[]): Promise<void> {
  const pieces = Math.ceil((Number(megabytesOption) * 1e6) / pieceBytes);
  const sizeBytes = pieces * pieceBytes;
  const dataDirectory = await mkdtemp(join(tmpdir(), "stowage-bench-store-"));
  try {
    await using database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
    await using store = await openObjectStore({ database, sections: sectionsOf(new DatabaseDriver(database)) });
    const ref = { account: "bench", bucket: "b", key: "k" };
    const digest = await timed("made and digested", sizeBytes, () => digestOf(body(pieces)));
    await timed("put", sizeBytes, async () => {
      const staged = await store.stage(ref, { open: async () => Readable.from(body(pieces)), sizeBytes }, call);
      await database.transaction((tx) => store.publish(tx, [staged]), call);
    });
    const read = await timed("got", sizeBytes, async () => digestOf((await store.get(ref, call)).body));
    if (read !== digest) throw new Error("what was read is not what was written");
  } finally {
    await rm(dataDirectory, { recursive: true, force: true });
  }
}

/** The same bytes each time, and none that a compression would make smaller. */
function* body(pieces: number): Generator<Buffer> {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16));
  const zeros = Buffer.alloc(pieceBytes);
  for (let piece = 0; piece < pieces; piece++) yield cipher.update(zeros);
}

async function timed<T>(what: string, sizeBytes: number, work: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  const result = await work();
  const rate = sizeBytes / 1e3 / (performance.now() - begun);
  const peakRssBytes = process.resourceUsage().maxRSS * 1024;
  console.log(`${megabytes(sizeBytes)} ${what}: ${rate.toFixed(0)} MB/s; peak RSS so far ${megabytes(peakRssBytes)}`);
  return result;
}

async function digestOf(chunks: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of chunks) hash.update(chunk);
  return `sha256:${hash.digest("hex")}`;
}
