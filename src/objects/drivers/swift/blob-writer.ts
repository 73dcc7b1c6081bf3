import { randomBytes } from "node:crypto";
import { addAbortSignal, type Readable } from "node:stream";
import { isCode, messageOf, StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { BodySource, PhysicalKey } from "../../driver.ts";
import { checkedPieces, md5Of, PieceReader, Upload } from "./bodies.ts";
import type { SwiftClient } from "./client.ts";
import { type Attempt, driverName, failed, wasNeverSent } from "./failure.ts";
import type { ServerLimits } from "./server-limits.ts";
import { type Answer, type Body, discard } from "./transport.ts";

/** A body up to this size is in memory: it goes in one request, with its digest before it. */
const inlineBytesMax = 1024 * 1024;
const cleanUpTimeoutMs = 60_000;
/** Before it answers, the server brings much to its disks, or looks at each segment of a manifest. */
const answerTimeoutMs = 600_000;
const tokenHeader = "x-object-meta-stowage-put";

export interface BlobNames {
  readonly blob: string;
  /** What begins with this belongs to the blob. */
  readonly segments: string;
}

interface Segment {
  readonly name: string;
  readonly md5: string;
  readonly sizeBytes: number;
}

/**
 * Writes one blob: in one request if it is small, or of known size and not large; else in segments and a manifest.
 *
 * | step | durable | a crash leaves | who goes on |
 * |---|---|---|---|
 * | segment | an object below `segments/KEY/`, which no listing shows | segments of no blob | `purge` |
 * | blob, or manifest of segments | the blob, whole: Swift has compared its MD5 | – | – |
 *
 * A failure takes back what it may have written. Each put marks the blob with a token of its own, so that nobody takes back another's.
 */
export class BlobWriter {
  readonly #client: SwiftClient;
  readonly #attempt: Attempt;
  readonly #key: PhysicalKey;
  readonly #names: BlobNames;
  readonly #segmentBytes: number;
  readonly #limits: (call: Call) => Promise<ServerLimits>;
  readonly #token = randomBytes(12).toString("hex");
  readonly #segments: string[] = [];
  /** The blob may be there, though nobody has said so. */
  #isBlobInDoubt = false;

  constructor(
    client: SwiftClient,
    attempt: Attempt & { readonly key: PhysicalKey },
    names: BlobNames,
    segmentBytes: number,
    limits: (call: Call) => Promise<ServerLimits>,
  ) {
    this.#client = client;
    this.#attempt = attempt;
    this.#key = attempt.key;
    this.#names = names;
    this.#segmentBytes = segmentBytes;
    this.#limits = limits;
  }

  /** Stores the body and returns its size. */
  async write(body: BodySource, call: Call): Promise<number> {
    const opened = await this.#open(body, call);
    let { reader } = opened;
    const streams = [opened.stream];
    try {
      const start: Buffer[] = [];
      if ((body.sizeBytes ?? 0) <= inlineBytesMax) {
        for await (const piece of reader.take(inlineBytesMax)) start.push(piece);
        if (await reader.isAtEnd()) return await this.#writeInline(Buffer.concat(start), call);
      }
      const { objectBytesMax, segmentsMax } = await this.#limits(call);
      const segmentBytes = Math.min(this.#segmentBytes, objectBytesMax);
      const { sizeBytes } = body;
      if (sizeBytes !== undefined && sizeBytes > Math.max(segmentBytes * segmentsMax, objectBytesMax))
        throw this.#tooLarge();
      const isWhole = segmentsMax === 0 || (sizeBytes !== undefined && sizeBytes <= segmentBytes);
      if (!isWhole)
        return await this.#writeSegments(new PieceReader(both(start, reader)), segmentBytes, segmentsMax, call);
      let begun: Buffer[] | undefined = start;
      return await this.#writeWhole(
        async () => {
          if (begun === undefined) {
            const again = await this.#open(body, call);
            streams.push(again.stream);
            reader = again.reader;
          }
          const pieces = both(begun ?? [], reader);
          begun = undefined;
          return pieces;
        },
        sizeBytes,
        call,
      );
    } catch (error) {
      await this.#cleanUp(call);
      throwIfAborted(call);
      // What the HTTP client says of a body that failed is not what the body said.
      throw reader.failure ?? error;
    } finally {
      for (const stream of streams) stream.destroy();
    }
  }

  async #open(body: BodySource, call: Call): Promise<{ stream: Readable; reader: PieceReader }> {
    // A body that has stalled must not outlive its call.
    const stream = addAbortSignal(call.signal, await body.open(call));
    // It may end after the last who reads from it has gone.
    stream.on("error", () => {});
    return { stream, reader: new PieceReader(checkedPieces(stream, body.sizeBytes, this.#attempt)) };
  }

  async #writeInline(bytes: Buffer, call: Call): Promise<number> {
    const md5 = md5Of(bytes);
    await this.#putBlob(
      { etag: md5 },
      () => bytes,
      () => md5,
      () => true,
      call,
    );
    return bytes.length;
  }

  async #writeWhole(
    open: () => Promise<AsyncIterable<Buffer>>,
    sizeBytes: number | undefined,
    call: Call,
  ): Promise<number> {
    let upload = new Upload(emptyBody);
    const headers: Record<string, string> = sizeBytes === undefined ? {} : { "content-length": String(sizeBytes) };
    const body = async () => {
      upload = new Upload(await open());
      return upload;
    };
    await this.#putBlob(
      headers,
      body,
      () => upload.md5,
      () => upload.isHandedOver,
      call,
    );
    return upload.sizeBytes;
  }

  async #writeSegments(reader: PieceReader, segmentBytes: number, segmentsMax: number, call: Call): Promise<number> {
    const segments: Segment[] = [];
    do {
      if (segments.length === segmentsMax) throw this.#tooLarge();
      segments.push(await this.#writeSegment(reader, segmentBytes, call));
    } while (!(await reader.isAtEnd()));
    const manifest = segments.map(({ name, md5, sizeBytes }) => ({
      path: `/${this.#client.container}/${name}`,
      etag: md5,
      size_bytes: sizeBytes,
    }));
    // Swift refuses the manifest unless each segment is as it says; this is then the blob's own tag.
    const etag = md5Of(segments.map(({ md5 }) => md5).join(""));
    await this.#putBlob(
      { etag },
      () => JSON.stringify(manifest),
      () => etag,
      () => true,
      call,
      true,
    );
    return segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  async #writeSegment(reader: PieceReader, segmentBytes: number, call: Call): Promise<Segment> {
    const name = `${this.#names.segments}${this.#token}/${String(this.#segments.length).padStart(5, "0")}`;
    this.#segments.push(name);
    let upload: Upload | undefined;
    const body = () => {
      // The bytes of a segment pass once: the whole put has to be tried again, with the token that this one lacked.
      if (upload !== undefined) throw failed(this.#attempt, "the token was refused in the middle of the segments");
      upload = new Upload(reader.take(segmentBytes));
      return upload;
    };
    const request = { method: "PUT", name, body, answerTimeoutMs, accepts: [201] } as const;
    const answer = await this.#client.request(request, this.#attempt, call);
    await discard(answer, call);
    const { md5, sizeBytes } = upload as unknown as Upload;
    this.#compare(answer, md5);
    return { name, md5, sizeBytes };
  }

  /** The request that makes the blob. */
  async #putBlob(
    headers: Readonly<Record<string, string>>,
    body: () => Body | Promise<Body>,
    md5: () => string,
    isHandedOver: () => boolean,
    call: Call,
    isManifest = false,
  ): Promise<void> {
    let answer: Answer;
    let isBegun = false;
    try {
      answer = await this.#client.request(
        {
          method: "PUT",
          name: this.#names.blob,
          ...(isManifest ? { query: { "multipart-manifest": "put" } } : {}),
          headers: {
            "if-none-match": "*",
            "content-type": "application/octet-stream",
            [tokenHeader]: this.#token,
            ...headers,
          },
          body: () => {
            isBegun = true;
            return body();
          },
          answerTimeoutMs,
          accepts: [201, 412],
        },
        this.#attempt,
        call,
      );
    } catch (error) {
      const isRefused = isCode(error, "BACKEND_DENIED", "BACKEND_CONTAINER_MISSING", "BACKEND_FULL");
      this.#isBlobInDoubt = isBegun && isHandedOver() && !isRefused && !wasNeverSent(error);
      throw error;
    }
    await discard(answer, call);
    if (answer.statusCode === 412) throw new StowageError("BACKEND_KEY_EXISTS", { driver: driverName, key: this.#key });
    this.#isBlobInDoubt = true;
    this.#compare(answer, md5());
    throwIfAborted(call);
    this.#isBlobInDoubt = false;
  }

  #compare(answer: Answer, expected: string): void {
    const { etag } = answer.headers;
    const found = typeof etag === "string" ? etag.replace(/^(?:W\/)?"?([^"]*)"?$/, "$1") : "none";
    if (found !== expected)
      throw failed(this.#attempt, `the bytes arrived damaged: their MD5 is ${found.slice(0, 64)}, not ${expected}`);
  }

  #tooLarge(): StowageError {
    const reason = "the body is larger than this Swift takes";
    const details = { driver: driverName, operation: this.#attempt.operation, key: this.#key, reason };
    return new StowageError("BACKEND_FULL", details, { hint: "raise segment_size_mbytes" });
  }

  /** Takes back what was written. What it can't take back, `purge` does. */
  async #cleanUp(call: Call): Promise<void> {
    const own: Call = { signal: AbortSignal.timeout(cleanUpTimeoutMs), log: call.log };
    try {
      // A DELETE that comes later than a PUT began undoes it, even if that PUT ends after it.
      if (this.#isBlobInDoubt && !(await this.#isAnothers(own))) await this.#delete(this.#names.blob, own);
      for (let at = 0; at < this.#segments.length; at += 8) {
        await Promise.all(this.#segments.slice(at, at + 8).map((name) => this.#delete(name, own)));
      }
    } catch (error) {
      call.log.warn(
        { driver: driverName, key: this.#key, reason: messageOf(error) },
        "a failed put could not be taken back",
      );
    }
  }

  async #isAnothers(call: Call): Promise<boolean> {
    const request = { method: "HEAD", name: this.#names.blob, accepts: [200, 404] } as const;
    const { statusCode, headers } = await this.#client.request(request, this.#attempt, call);
    return statusCode === 200 && headers[tokenHeader] !== this.#token;
  }

  async #delete(name: string, call: Call): Promise<void> {
    const request = { method: "DELETE", name, accepts: [200, 204, 404] } as const;
    await discard(await this.#client.request(request, this.#attempt, call), call);
  }
}

const emptyBody: AsyncIterable<Buffer> = (async function* () {})();

async function* both(start: readonly Buffer[], rest: PieceReader): AsyncGenerator<Buffer> {
  yield* start;
  yield* rest.take(Number.POSITIVE_INFINITY);
}
