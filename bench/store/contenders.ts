import { createHash, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, open, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { sql } from "kysely";
import { drivers } from "../../src/app/drivers.ts";
import { defaultCompression } from "../../src/config/index.ts";
import { type Database, openDatabase } from "../../src/db/index.ts";
import { type BackendSection, guard, openObjectStore } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { pieces, stream, whole } from "./content.ts";

/** Puts and gets documents by number. */
export interface Contender extends AsyncDisposable {
  put(index: number, sizeBytes: number): Promise<void>;
  /** Reads all of it; returns how many bytes there were. */
  get(index: number): Promise<number>;
}

/** A client that does no more than putting and getting. Who gives `see` is shown the bytes that are read. */
interface RawClient extends Contender {
  get(index: number, see?: (bytes: Buffer) => void): Promise<number>;
}

/** What a driver is measured on: how stowage is told to reach it, and how anybody else would. */
export interface Field {
  readonly driver: string;
  /** For people. */
  readonly place: string;
  /** `storage_driver.config`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Where the embedded database is. */
  readonly dataDirectory: string;
}

const call = createCall();

export async function openContender(name: string, field: Field): Promise<Contender> {
  if (name === "stowage") return await openStowage(field);
  const open = { db: openRawDatabase, localfs: openRawFiles, s3: openRawS3, swift: openRawSwift }[field.driver];
  if (open === undefined) throw new Error(`nothing to compare with ${field.driver}`);
  return name === "raw" ? await open(field) : await openCareful(field, open);
}

/** The whole store: intent, both digests, proof, publication. */
async function openStowage(field: Field): Promise<Contender> {
  const opener = drivers.find(({ name }) => name === field.driver);
  if (opener === undefined) throw new Error(`no driver ${field.driver}`);
  const config = opener.schema.parse(field.config);
  const workingSet: BackendSection = { opener, config, compression: defaultCompression };
  const database = await openDatabase({ kind: "embedded", dataDirectory: field.dataDirectory }, {}, call);
  const store = await openObjectStore({ database, sections: { workingSet }, guard });
  const ref = (index: number) => ({ account: "bench", bucket: "b", key: String(index) });
  return {
    async put(index, sizeBytes) {
      const staged = await store.stage(ref(index), { open: async () => stream(index, sizeBytes), sizeBytes }, call);
      await database.transaction((tx) => store.publish(tx, [staged]), call);
    },
    get: async (index) => await drained((await store.get(ref(index), call)).body),
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

/**
 * The raw client with the least that any store must do whose garbage is always found, whose overwrites are whole, and whose bytes are checked: a row
 * before the bytes (not where they come with it), the digests of content and of stored bytes, a row that makes them visible; and back, the row and both digests.
 */
async function openCareful(field: Field, openRaw: (field: Field) => Promise<RawClient>): Promise<Contender> {
  const { driver, dataDirectory } = field;
  const database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
  const raw = await openRaw(field);
  const run = async (statement: ReturnType<typeof sql<Digests>>) => (await statement.execute(database.sql)).rows;
  await run(sql`create table if not exists careful_documents (
    id integer primary key, is_visible boolean not null, content text, stored text)`);
  return {
    async put(index, sizeBytes) {
      const digester = new Digester();
      for (const piece of pieces(index, sizeBytes)) digester.update(piece);
      const { content, stored } = digester.digests();
      if (driver === "db") {
        await run(sql`with bytes as (insert into raw_documents values (${index}, ${whole(index, sizeBytes)}))
          insert into careful_documents values (${index}, true, ${content}, ${stored})`);
        return;
      }
      await run(sql`insert into careful_documents values (${index}, false)`);
      await raw.put(index, sizeBytes);
      await run(sql`update careful_documents
        set is_visible = true, content = ${content}, stored = ${stored} where id = ${index}`);
    },
    async get(index) {
      const [row] = await run(
        sql<Digests>`select content, stored from careful_documents where id = ${index} and is_visible`,
      );
      const digester = new Digester();
      const bytes = await raw.get(index, (piece) => digester.update(piece));
      const { content, stored } = digester.digests();
      if (row?.content !== content || row.stored !== stored) throw new Error(`document ${index} has wrong digests`);
      return bytes;
    },
    async [Symbol.asyncDispose]() {
      await raw[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

interface Digests {
  readonly content: string;
  readonly stored: string;
}

/** Of the content, and of what is stored: a header and the content. */
class Digester {
  readonly #content = createHash("sha256");
  readonly #stored = createHash("sha256").update(Buffer.alloc(200));

  update(bytes: Buffer): void {
    this.#content.update(bytes);
    this.#stored.update(bytes);
  }

  digests(): Digests {
    return { content: this.#content.digest("hex"), stored: this.#stored.digest("hex") };
  }
}

/** One row for each document, its bytes as they are. */
async function openRawDatabase({ dataDirectory }: Field): Promise<RawClient> {
  const database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
  const run = (statement: ReturnType<typeof sql>): ReturnType<typeof statement.execute> =>
    statement.execute(database.sql);
  await run(sql`create table if not exists raw_documents (id integer primary key, bytes bytea not null)`);
  await run(sql`alter table raw_documents alter column bytes set storage external`);
  return {
    async put(index, sizeBytes) {
      await run(sql`insert into raw_documents values (${index}, ${whole(index, sizeBytes)})`);
    },
    get: async (index, see) => await rawBytes(database, index, see),
    [Symbol.asyncDispose]: () => database[Symbol.asyncDispose](),
  };
}

async function rawBytes(database: Database, index: number, see?: (bytes: Buffer) => void): Promise<number> {
  const { rows } = await sql<{ bytes: Buffer }>`select bytes from raw_documents where id = ${index}`.execute(
    database.sql,
  );
  const bytes = rows[0]?.bytes ?? Buffer.alloc(0);
  see?.(bytes);
  return bytes.length;
}

/** Files as any program writes them that must not lose one: under a temporary name, fsync, rename, fsync of the directory. */
async function openRawFiles({ config }: Field): Promise<RawClient> {
  const path = join(String(config.archive_data_dir), "raw");
  await mkdir(path, { recursive: true });
  const directory = await open(path);
  return {
    async put(index, sizeBytes) {
      const temporary = join(path, `${index}.${randomUUID()}.tmp`);
      const file = await open(temporary, "wx");
      try {
        for await (const piece of stream(index, sizeBytes)) await file.write(piece as Buffer);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, join(path, String(index)));
      await directory.sync();
    },
    async get(index, see) {
      const bytes = await readFile(join(path, String(index)));
      see?.(bytes);
      return bytes.length;
    },
    [Symbol.asyncDispose]: () => directory.close(),
  };
}

/** The SDK as its documentation uses it. */
async function openRawS3({ config }: Field): Promise<RawClient> {
  const { CreateBucketCommand, PutObjectCommand, GetObjectCommand } = await import("@aws-sdk/client-s3");
  const client = (await import("./bucket.ts")).clientOf(config);
  const bucket = { Bucket: String(config.bucket) };
  await client.send(new CreateBucketCommand(bucket)).catch((error: unknown) => {
    if (!(error instanceof Error && error.name === "BucketAlreadyOwnedByYou")) throw error;
  });
  const name = (index: number) => ({ Bucket: String(config.bucket), Key: `raw/${index}` });
  return {
    async put(index, sizeBytes) {
      await client.send(new PutObjectCommand({ ...name(index), Body: whole(index, sizeBytes) }));
    },
    async get(index, see) {
      const { Body } = await client.send(new GetObjectCommand(name(index)));
      return await drained(Body as Readable, see);
    },
    async [Symbol.asyncDispose]() {
      client.destroy();
    },
  };
}

/** Plain HTTP requests with a token. */
async function openRawSwift({ config }: Field): Promise<RawClient> {
  const headers = { "x-auth-user": String(config.user), "x-auth-key": String(config.key) };
  const answer = await fetch(String(config.auth), { headers });
  const token = { "x-auth-token": answer.headers.get("x-auth-token") ?? "" };
  const base = `${answer.headers.get("x-storage-url")}/${String(config.container)}`;
  const { request } = await import("undici");
  return {
    async put(index, sizeBytes) {
      const body = whole(index, sizeBytes);
      const { statusCode, body: rest } = await request(`${base}/raw-${index}`, { method: "PUT", headers: token, body });
      await rest.dump();
      if (statusCode !== 201) throw new Error(`Swift answered ${statusCode}`);
    },
    async get(index, see) {
      const { body } = await request(`${base}/raw-${index}`, { headers: token });
      return await drained(body, see);
    },
    async [Symbol.asyncDispose]() {},
  };
}

async function drained(body: Readable, see?: (bytes: Buffer) => void): Promise<number> {
  let bytes = 0;
  for await (const chunk of body) {
    bytes += (chunk as Buffer).length;
    see?.(chunk as Buffer);
  }
  return bytes;
}

/** A directory for one run, and its end. */
export async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "stowage-bench-store-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
