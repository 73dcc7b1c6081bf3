import { pipeline, Readable } from "node:stream";
import { z } from "zod";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type {
  BodySource,
  ByteRange,
  DriverCapabilities,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "../../driver.ts";
import { BlobWriter } from "./blob-writer.ts";
import { contentLength, Download } from "./bodies.ts";
import type { SwiftClient } from "./client.ts";
import { type Attempt, containerMissing, driverName, exchangeFailure, failed } from "./failure.ts";
import { readLimits, type ServerLimits } from "./server-limits.ts";
import { type Answer, discard, readJson } from "./transport.ts";

export interface SwiftDriverSettings {
  /** Put before the name of each object. */
  readonly prefix: string;
  readonly segmentBytes: number;
  /** Of a listing; 1000 where it is not said. */
  readonly pageSize?: number;
}

/** Listings follow at once while all servers are up, and when the updater comes round (every 300 s by default) where one was not. */
const listLagMs = 3_600_000;
const pageSizeDefault = 1000;
const keyShape = /^[0-9a-f]{32}$/;
const segmentShape = /^segments\/([0-9a-f]{32})\//;
/** A thousand of the longest names, in the longest spelling that JSON has for them. */
const pageBytesMax = 16 * 1024 * 1024;
const bulkAnswerBytesMax = 1024 * 1024;

/**
 * Blobs as objects of a container: `PREFIX KEY`. Segments of large ones lie below `PREFIX segments/KEY/`, after all keys in the order of names, so
 * that a listing with a delimiter meets them as one entry.
 */
export class SwiftDriver implements ObjectDriver {
  readonly name = driverName;
  readonly #client: SwiftClient;
  readonly #settings: SwiftDriverSettings;
  #limits: ServerLimits | undefined;

  constructor(client: SwiftClient, settings: SwiftDriverSettings) {
    this.#client = client;
    this.#settings = settings;
  }

  async capabilities(call: Call): Promise<DriverCapabilities> {
    const { objectBytesMax, segmentsMax } = await this.#readLimits(call);
    return {
      objectBytesMax: Math.max(objectBytesMax, Math.min(this.#settings.segmentBytes, objectBytesMax) * segmentsMax),
      // `If-None-Match: *` is looked at when a PUT begins: of two that race, both succeed, and the one that began later stays.
      exclusivePut: false,
      serverDigest: false,
      isShared: true,
      listLagMs,
    };
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    throwIfAborted(call);
    const names = { blob: this.#nameOf(key), segments: this.#segmentsOf(key) };
    const attempt = { ...this.#attempt("put", key), key };
    const writer = new BlobWriter(this.#client, attempt, names, this.#settings.segmentBytes, (under) =>
      this.#readLimits(under),
    );
    return { key, sizeBytes: await writer.write(body, call) };
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    const attempt = this.#attempt("get", key);
    const headers: Record<string, string> = range === undefined ? {} : { range: `bytes=${range.first}-${range.last}` };
    const request = { method: "GET", name: this.#nameOf(key), headers, accepts: [200, 206, 404, 409, 416] } as const;
    const answer = await this.#client.request(request, attempt, call);
    switch (answer.statusCode) {
      case 200:
        if (range === undefined) return this.#download(answer, contentLength(answer.headers), key, attempt, call);
        answer.body.on("error", () => {}).destroy();
        throw failed(attempt, "the server does not understand ranges");
      case 206:
        return this.#download(answer, rangeLength(answer, range, attempt), key, attempt, call);
      case 416:
        await discard(answer, call);
        return Readable.from([], { objectMode: false });
      default:
        // 409: the manifest is there, a segment is not.
        await discard(answer, call);
        throw await this.#missing(key, attempt, call);
    }
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    await this.#delete(key, this.#attempt("delete", key), call);
  }

  async purge(key: PhysicalKey, _sizeBytes: number | undefined, call: Call): Promise<void> {
    const attempt = this.#attempt("purge", key);
    await this.#delete(key, attempt, call);
    for await (const { name } of this.#entries({ prefix: this.#segmentsOf(key) }, attempt, call)) {
      if (name !== undefined) await this.#deleteObject(name, attempt, call);
    }
  }

  async *list(after: PhysicalKey | undefined, call: Call): AsyncGenerator<StoredBlob> {
    const { prefix } = this.#settings;
    const query = { prefix, delimiter: "/", ...(after === undefined ? {} : { marker: this.#nameOf(after) }) };
    for await (const { name, bytes } of this.#entries(query, this.#attempt("list"), call)) {
      const key = name?.slice(prefix.length);
      // Whatever else lies there is not ours.
      if (key !== undefined && keyShape.test(key)) yield { key: key as PhysicalKey, sizeBytes: bytes ?? 0 };
    }
  }

  /** All else below the prefix. Segments of a blob that is there are its own bytes; the names of blobs, in order, come before those of all segments. */
  async *listForeign(call: Call): AsyncGenerator<readonly ForeignBlob[]> {
    const { prefix } = this.#settings;
    const blobs = this.list(undefined, call)[Symbol.asyncIterator]();
    try {
      let blob = await blobs.next();
      for await (const page of this.#pages({ prefix }, this.#attempt("list"), call)) {
        const foreign: ForeignBlob[] = [];
        for (const { name, bytes: sizeBytes = 0 } of page) {
          const rest = name?.slice(prefix.length);
          if (name === undefined || rest === undefined || keyShape.test(rest)) continue;
          const partOf = segmentShape.exec(rest)?.[1] as PhysicalKey | undefined;
          while (partOf !== undefined && blob.done !== true && blob.value.key < partOf) blob = await blobs.next();
          const isOwn = partOf !== undefined && blob.done !== true && blob.value.key === partOf;
          if (!isOwn) foreign.push(partOf === undefined ? { name, sizeBytes } : { name, sizeBytes, partOf });
        }
        yield foreign;
      }
    } finally {
      await blobs.return?.(undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  #attempt(operation: Attempt["operation"], key?: PhysicalKey): Attempt {
    const { container } = this.#client;
    const resource = `${container}/${key === undefined ? this.#settings.prefix : this.#nameOf(key)}`;
    return { operation, resource, container, ...(key === undefined ? {} : { key }) };
  }

  #nameOf(key: PhysicalKey): string {
    return `${this.#settings.prefix}${key}`;
  }

  #segmentsOf(key: PhysicalKey): string {
    return `${this.#settings.prefix}segments/${key}/`;
  }

  async #readLimits(call: Call): Promise<ServerLimits> {
    this.#limits ??= await readLimits(this.#client, this.#attempt("capabilities"), call);
    return this.#limits;
  }

  #download(answer: Answer, expected: number | undefined, key: PhysicalKey, attempt: Attempt, call: Call): Readable {
    const download = new Download(expected, attempt, async (error) => {
      const failure = exchangeFailure(error, attempt, call) as Error;
      if (call.signal.aborted) return failure;
      // Somebody may have deleted what is being read.
      const isThere = await this.#isThere(this.#nameOf(key), attempt, call).catch(() => true);
      return isThere
        ? failure
        : new StowageError("BACKEND_KEY_MISSING", { driver: driverName, key }, { cause: failure });
    });
    pipeline(answer.body, download, () => {}); // its reader is told by the stream itself
    return download;
  }

  async #missing(key: PhysicalKey, attempt: Attempt, call: Call): Promise<StowageError> {
    if (!(await this.#isThere(undefined, attempt, call))) return containerMissing(attempt);
    return new StowageError("BACKEND_KEY_MISSING", { driver: driverName, key });
  }

  async #isThere(name: string | undefined, attempt: Attempt, call: Call): Promise<boolean> {
    const request = { method: "HEAD", ...(name === undefined ? {} : { name }), accepts: [200, 204, 404] } as const;
    const answer = await this.#client.request(request, attempt, call);
    await discard(answer, call);
    return answer.statusCode !== 404;
  }

  async #delete(key: PhysicalKey, attempt: Attempt, call: Call): Promise<void> {
    const name = this.#nameOf(key);
    const head = await this.#client.request({ method: "HEAD", name, accepts: [200, 404] }, attempt, call);
    await discard(head, call);
    if (head.headers["x-static-large-object"] !== undefined) await this.#deleteSegmented(name, attempt, call);
    // Also of what is not there: it undoes a PUT that has begun and not yet ended.
    await this.#deleteObject(name, attempt, call);
  }

  /** Deletes the segments, then the manifest. */
  async #deleteSegmented(name: string, attempt: Attempt, call: Call): Promise<void> {
    const query = { "multipart-manifest": "delete" };
    const request = {
      method: "DELETE",
      name,
      query,
      headers: { accept: "application/json" },
      accepts: [200, 204, 404],
    } as const;
    const answer = await this.#client.request(request, attempt, call);
    if (answer.statusCode !== 200) return await discard(answer, call);
    // The true status stands in the body, for the head of the answer goes out before the work is done.
    const report = bulkReport.safeParse(await readJson(answer, bulkAnswerBytesMax, attempt, call));
    const status = report.data?.["Response Status"] ?? "unknown";
    if (!/^(?:200|404)\b/.test(status)) throw failed(attempt, `segments could not be deleted: ${status.slice(0, 100)}`);
  }

  async #deleteObject(name: string, attempt: Attempt, call: Call): Promise<void> {
    const answer = await this.#client.request({ method: "DELETE", name, accepts: [200, 204, 404] }, attempt, call);
    await discard(answer, call);
  }

  /** What the container lists, in the order of names (bytes). */
  async *#entries(query: Readonly<Record<string, string>>, attempt: Attempt, call: Call): AsyncGenerator<Entry> {
    for await (const page of this.#pages(query, attempt, call)) yield* page;
  }

  async *#pages(
    query: Readonly<Record<string, string>>,
    attempt: Attempt,
    call: Call,
  ): AsyncGenerator<readonly Entry[]> {
    let { marker } = query;
    const limit = String(
      Math.min(this.#settings.pageSize ?? pageSizeDefault, (await this.#readLimits(call)).listedMax),
    );
    for (;;) {
      const page = {
        ...query,
        format: "json",
        limit,
        ...(marker === undefined ? {} : { marker }),
      };
      const answer = await this.#client.request({ method: "GET", query: page, accepts: [200, 204] }, attempt, call);
      if (answer.statusCode === 204) return await discard(answer, call);
      const { success, data } = listing.safeParse(await readJson(answer, pageBytesMax, attempt, call));
      if (!success) throw failed(attempt, "the answer is no listing");
      yield data;
      // A page may be short though more follows: only an empty one is the last.
      const last = data.at(-1);
      const next = last?.name ?? last?.subdir;
      if (next === undefined) return;
      if (marker !== undefined && Buffer.compare(Buffer.from(next), Buffer.from(marker)) <= 0)
        throw failed(attempt, "the listing goes in circles");
      marker = next;
    }
  }
}

const listing = z.array(
  z.object({ name: z.string().optional(), bytes: z.int().min(0).optional(), subdir: z.string().optional() }),
);
type Entry = z.infer<typeof listing>[number];

const bulkReport = z.object({ "Response Status": z.string() });

/** How many bytes a part of an object has, if it is the part that was asked for. */
function rangeLength(answer: Answer, range: ByteRange | undefined, attempt: Attempt): number {
  const value = answer.headers["content-range"];
  const [, first, last, total] =
    (typeof value === "string" && /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(value)) || [];
  const isAsked = Number(first) === range?.first && Number(last) === Math.min(range.last, Number(total) - 1);
  if (isAsked) return Number(last) - Number(first) + 1;
  answer.body.on("error", () => {}).destroy();
  throw failed(attempt, "the server sent another range than was asked for");
}
