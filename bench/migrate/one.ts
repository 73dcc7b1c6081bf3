/** One task in a process of its own, so that its memory is its own: `node bench/migrate/one.ts '{…}'`. Prints a line of JSON. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { sql } from "kysely";
import { openDatabase } from "../../src/db/index.ts";
import { giveWay } from "../../src/runtime/index.ts";
import { peakMemory } from "../measure.ts";
import { type Contender, openContender, temporaryDirectory } from "../store/contenders.ts";
import { stream } from "../store/content.ts";
import { type Load, sizeOf } from "./load.ts";
import { call, migrate, openAt, type Place, refOf } from "./store.ts";

export type Task = { readonly dataDirectory: string; readonly load: Load; readonly concurrency: number | "auto" } & (
  | { readonly kind: "fill"; readonly at: Place }
  /** Rows of objects that lie nowhere: enough for a plan. */
  | { readonly kind: "pretend"; readonly at: Place }
  | { readonly kind: "migrate" | "migrate online" | "plan"; readonly from: Place; readonly to: Place }
  /** No more than putting the same bytes. */
  | { readonly kind: "raw"; readonly to: Place }
  /** The same by a native tool, from files. */
  | { readonly kind: "rclone"; readonly program: string; readonly to: Place }
  /** Documents in a table of the database, for raw moves and the original's way. */
  | { readonly kind: "fill raw" }
  /** Each is got, put, got back and deleted at its source, many at once; nothing is recorded, and no digest computed. */
  | { readonly kind: "raw moves"; readonly to: Place }
  /** One object at a time: list, then get, put and delete each. */
  | { readonly kind: "one by one"; readonly to: Place }
  /** Reads until standard input ends, or as many milliseconds. */
  | { readonly kind: "read"; readonly places: readonly Place[]; readonly readMs?: number }
);

export interface Outcome {
  readonly ms: number;
  readonly planMs: number;
  readonly cpuMs: number;
  /** How much of all processors' time was used, by whomever, from 0 to 1. */
  readonly busy: number;
  readonly peakRssBytes: number;
  readonly reads: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const task = JSON.parse(process.argv[2] ?? "{}") as Task;
const { dataDirectory, load, concurrency } = task;
/** Of the others, as many as `auto` is for a migration with both of its errands. */
const copiesAtOnce = concurrency === "auto" ? 64 : concurrency;
const before = process.cpuUsage();
const begun = performance.now();
const processorsBefore = processors();
const figures: Partial<Outcome> = await perform();
const { user, system } = process.cpuUsage(before);
const processorsAfter = processors();
const outcome: Outcome = {
  ms: performance.now() - begun,
  planMs: 0,
  reads: 0,
  p50Ms: 0,
  p99Ms: 0,
  ...figures,
  cpuMs: (user + system) / 1000,
  busy: 1 - (processorsAfter.idleMs - processorsBefore.idleMs) / (processorsAfter.allMs - processorsBefore.allMs),
  peakRssBytes: peakMemory(),
};
console.log(JSON.stringify(outcome));

async function perform(): Promise<Partial<Outcome>> {
  switch (task.kind) {
    case "fill":
      return await fill(task.at);
    case "pretend":
      return await pretend(task.at);
    case "migrate":
    case "migrate online":
    case "plan":
      return await carryOut(task.from, task.to);
    case "raw":
      return await raw(task.to);
    case "rclone":
      return await rclone(task.program, task.to);
    case "fill raw":
      return await fillRaw();
    case "raw moves":
      return await rawMoves(task.to);
    case "one by one":
      return await oneByOne(task.to);
    case "read":
      return await read(task.places, task.readMs);
  }
}

async function carryOut(from: Place, to: Place): Promise<Partial<Outcome>> {
  // As the command does.
  if (task.kind === "migrate online") giveWay();
  await using opened = await openAt(dataDirectory, [to, from]);
  const options = { concurrency, isOnline: task.kind === "migrate online", isPlanOnly: task.kind === "plan" };
  const { planMs, runMs } = await migrate(opened, [from, to], options);
  return { planMs, ms: planMs + runMs };
}

async function fill(at: Place): Promise<Partial<Outcome>> {
  await using opened = await openAt(dataDirectory, [at]);
  const { database, store } = opened;
  await eachAtOnce(load.documents, async (index) => {
    const sizeBytes = sizeOf(load, index);
    const staged = await store.stage(refOf(index), { open: async () => stream(index, sizeBytes), sizeBytes }, call);
    await database.transaction((tx) => store.publish(tx, [staged]), call);
  });
  return {};
}

async function pretend(at: Place): Promise<Partial<Outcome>> {
  await using opened = await openAt(dataDirectory, [at]);
  const { rows } = await sql<{ id: number }>`select id from backends where driver = ${at.driver}`.execute(
    opened.database.sql,
  );
  await sql`
    with made as (
      insert into locations (backend_id, physical_key, account, bucket, object_key, state, codec, content_digest, content_bytes,
        stored_digest, stored_bytes, proven_at)
      select ${rows[0]?.id ?? 0}, md5(n::text), 'bench', 'b', n::text, 'live', 'none', 'sha256:' || repeat(md5(n::text), 2), 50000,
        'sha256:' || repeat(md5(n::text), 2), 50300, now()
      from generate_series(1, ${load.documents}::integer) as n returning id, account, bucket, object_key)
    insert into objects (account, bucket, key, location_id, version)
    select account, bucket, object_key, id, 1 from made`.execute(opened.database.sql);
  await sql`analyze`.execute(opened.database.sql);
  return {};
}

async function raw(to: Place): Promise<Partial<Outcome>> {
  await using contender = await rawAt(to);
  const begunPuts = performance.now();
  await eachAtOnce(load.documents, (index) => contender.put(index, sizeOf(load, index)));
  return { ms: performance.now() - begunPuts };
}

/** Reads no database, verifies nothing, deletes nothing. */
async function rclone(program: string, { config }: Place): Promise<Partial<Outcome>> {
  await using directory = await temporaryDirectory();
  await eachAtOnce(load.documents, (index) =>
    writeFile(join(directory.path, String(index)), stream(index, sizeOf(load, index))),
  );
  const atOnce = ["--transfers", "--checkers"].flatMap((flag) => [flag, String(copiesAtOnce)]);
  const blindly = [
    "--no-check-dest",
    "--ignore-checksum",
    "--s3-no-check-bucket",
    "--s3-no-head",
    "--s3-disable-checksum",
  ];
  const env = {
    PATH: process.env.PATH,
    HOME: directory.path,
    RCLONE_CONFIG: "/dev/null",
    RCLONE_S3_PROVIDER: "Other",
    RCLONE_S3_ENDPOINT: String(config.url),
    RCLONE_S3_ACCESS_KEY_ID: String(config.access_key),
    RCLONE_S3_SECRET_ACCESS_KEY: String(config.secret_key),
  };
  const begunCopies = performance.now();
  const parameters = ["copy", directory.path, `:s3:${String(config.bucket)}/rclone`, ...atOnce, ...blindly];
  await promisify(execFile)(program, parameters, { env });
  return { ms: performance.now() - begunCopies };
}

/** Of the whole machine, since it was started. */
function processors(): { readonly idleMs: number; readonly allMs: number } {
  const times = cpus().map((each) => each.times);
  const idleMs = times.reduce((sum, { idle }) => sum + idle, 0);
  return { idleMs, allMs: times.reduce((sum, { user, nice, sys, irq }) => sum + user + nice + sys + irq, idleMs) };
}

async function rawAt({ driver, config }: Place): Promise<Contender> {
  return await openContender("raw", { driver, place: driver, config, dataDirectory });
}

async function fillRaw(): Promise<Partial<Outcome>> {
  await using contender = await rawAt({ driver: "db", config: {} });
  await eachAtOnce(load.documents, (index) => contender.put(index, sizeOf(load, index)));
  return {};
}

async function rawMoves(to: Place): Promise<Partial<Outcome>> {
  return await moveRaw(to, async ({ source, destination, remove }, ids) => {
    await eachAtOnce(ids.length, async (index) => {
      const id = ids[index] as number;
      const sizeBytes = await source.get(id);
      await destination.put(id, sizeBytes);
      if ((await destination.get(id)) !== sizeBytes)
        throw new Error(`document ${id} has come back with another length`);
      await remove(id);
    });
  });
}

async function oneByOne(to: Place): Promise<Partial<Outcome>> {
  return await moveRaw(to, async ({ source, destination, remove }, ids) => {
    for (const id of ids) {
      await destination.put(id, await source.get(id));
      await remove(id);
    }
  });
}

interface RawPlaces {
  readonly source: Contender;
  readonly destination: Contender;
  /** Deletes a document at the source. */
  remove(id: number): Promise<unknown>;
}

async function moveRaw(
  to: Place,
  work: (places: RawPlaces, ids: readonly number[]) => Promise<void>,
): Promise<Partial<Outcome>> {
  await using source = await rawAt({ driver: "db", config: {} });
  await using destination = await rawAt(to);
  await using database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
  const remove = (id: number) => sql`delete from raw_documents where id = ${id}`.execute(database.sql);
  const begunMoves = performance.now();
  const { rows } = await sql<{ id: number }>`select id from raw_documents order by id`.execute(database.sql);
  await work(
    { source, destination, remove },
    rows.map(({ id }) => id),
  );
  return { ms: performance.now() - begunMoves };
}

/** Readers of single documents, with a pause between two so that they do not take the machine for themselves. */
async function read(places: readonly Place[], readMs: number | undefined): Promise<Partial<Outcome>> {
  await using opened = await openAt(dataDirectory, places);
  const ended = new AbortController();
  if (readMs === undefined) process.stdin.on("end", () => ended.abort()).resume();
  else setTimeout(() => ended.abort(), readMs);
  const taken: number[] = [];
  await Promise.all(
    Array.from({ length: 2 }, async (_, reader) => {
      for (let turn = reader; !ended.signal.aborted; turn++) {
        const index = Math.imul(turn, 0x9e3779b1) >>> 0;
        const asked = performance.now();
        const { body } = await opened.store.get(refOf(index % load.documents), call);
        for await (const _chunk of body) {
          // only read
        }
        taken.push(performance.now() - asked);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }),
  );
  const sorted = taken.toSorted((one, other) => one - other);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { reads: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function eachAtOnce(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: copiesAtOnce }, async () => {
      while (next < count) await work(next++);
    }),
  );
}
