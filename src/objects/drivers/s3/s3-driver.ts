import { addAbortSignal, type Readable } from "node:stream";
import {
  type _Object,
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
} from "@aws-sdk/client-s3";
import { isCode, StowageError } from "../../../errors/index.ts";
import {
  type Call,
  createCall,
  defaultRetryPolicy,
  type RetryPolicy,
  throwIfAborted,
  unlessAborted,
} from "../../../runtime/index.ts";
import type {
  BodySource,
  ByteRange,
  DoomedBlob,
  DriverCapabilities,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "../../driver.ts";
import { readBlob } from "./blob-reader.ts";
import { BlobWriter } from "./blob-writer.ts";
import type { Connection } from "./connection.ts";
import { deleteMany } from "./delete-many.ts";
import { refusalOf } from "./failures.ts";
import { objectBytesMax, PartBuffers } from "./part-buffers.ts";
import { keyOf, markerAfter, objectOf, requestFor } from "./requests.ts";
import { probeObjects, probeUploads, type ServerTraits } from "./server-traits.ts";
import { putWhole } from "./whole-put.ts";
import type { Workshop } from "./workshop.ts";

/** Swift behind S3's protocol shows an object in listings when it gets to it; nobody says how long others take. */
const foreignListLagMs = 30_000;
/** Of 1000 uploads each: no key has more. */
const uploadPagesMax = 100;

export interface S3DriverOptions {
  readonly retryPolicy?: RetryPolicy;
  /** Bytes of a part; S3 takes no less than 5 MiB. */
  readonly partBytes?: number;
}

/** Blobs in a bucket. */
export class S3Driver implements ObjectDriver {
  readonly name = "s3";
  readonly #connection: Connection;
  readonly #shop: Workshop;
  #objects: Promise<ServerTraits> | undefined;
  #uploads: Promise<ServerTraits> | undefined;
  readonly #closing = new AbortController();

  constructor(connection: Connection, { retryPolicy = defaultRetryPolicy, partBytes }: S3DriverOptions) {
    this.#connection = connection;
    this.#shop = {
      connection,
      buffers: new PartBuffers(retryPolicy.clock, partBytes),
      retryPolicy,
      objects: (call) => this.#objectTraits(call),
      uploads: (call) => this.#uploadTraits(call),
    };
  }

  async capabilities(call: Call): Promise<DriverCapabilities> {
    const objects = await this.#objectTraits(call);
    const uploads = await this.#uploadTraits(call);
    return {
      objectBytesMax,
      exclusivePut: objects.refusesOverwrite && uploads.refusesOverwrite,
      serverDigest: objects.verifiesChecksum,
      isShared: true,
      listLagMs: this.#connection.configuration.url === undefined ? 0 : foreignListLagMs,
    };
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    throwIfAborted(call);
    if (body.bytes !== undefined) return await putWhole(this.#shop, key, body.bytes, call, body.sha256);
    const writer = new BlobWriter(this.#shop, key, body, call);
    try {
      // A body that has stalled must not outlive its call.
      const stream = addAbortSignal(call.signal, await body.open(call));
      for await (const piece of stream) await writer.add(piece as Buffer);
      return await writer.finish();
    } catch (error) {
      await writer.abandon();
      throwIfAborted(call);
      throw error;
    } finally {
      writer.release();
    }
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    return await readBlob(this.#connection, key, range, call);
  }

  async delete(key: PhysicalKey, call: Call): Promise<void> {
    const { bucket, prefix } = this.#connection.configuration;
    const object = objectOf(prefix, key);
    const command = () => new DeleteObjectCommand({ Bucket: bucket, Key: object });
    const request = requestFor("delete", object, key);
    try {
      await this.#connection.exchange({ method: "DELETE", key }, command, request, call);
    } catch (error) {
      if (!isCode(error, "BACKEND_KEY_MISSING")) throw error;
    }
  }

  /** Aborts unfinished uploads of the key as well: they hold parts that no listing of objects shows. */
  async purge(key: PhysicalKey, sizeBytes: number | undefined, call: Call): Promise<void> {
    const { bucket, prefix } = this.#connection.configuration;
    const object = objectOf(prefix, key);
    const uploads = this.#mayHaveParts(sizeBytes) ? await this.#findUploads(object, key, call) : [];
    for (const uploadId of uploads) {
      const command = new AbortMultipartUploadCommand({ Bucket: bucket, Key: object, UploadId: uploadId });
      const request = requestFor("abort upload", object, key);
      await this.#connection
        .send((client, options) => client.send(command, options), request, call)
        .catch((error: unknown) => {
          if (!refusalOf(error)?.is("NoSuchUpload")) throw error;
        });
    }
    await this.delete(key, call);
  }

  /** Those that were never sent in parts. */
  async purgeMany(blobs: readonly DoomedBlob[], call: Call): Promise<ReadonlySet<PhysicalKey>> {
    throwIfAborted(call);
    const whole = blobs.filter(({ sizeBytes }) => !this.#mayHaveParts(sizeBytes));
    return await deleteMany(
      this.#connection,
      whole.map(({ key }) => key),
      call,
    );
  }

  /**
   * The older of the two ways to list: it goes on after a key, where the newer one goes on with a token of the server's, which some servers can't make
   * or can't read.
   */
  async *list(after: PhysicalKey | undefined, call: Call): AsyncGenerator<StoredBlob> {
    const { prefix } = this.#connection.configuration;
    const from = after === undefined ? undefined : objectOf(prefix, after);
    let last: PhysicalKey | undefined = after;
    for await (const contents of this.#pages(from, (seen) => markerAfter(prefix, seen), call)) {
      for (const { Key = "", Size } of contents) {
        const key = keyOf(prefix, Key);
        if (key === undefined) continue;
        if (last !== undefined && key <= last) throw this.#failure("list", "the server's listing is not in order");
        last = key;
        yield { key, sizeBytes: Size ?? 0 };
      }
    }
  }

  /** All other objects whose names begin with the prefix. */
  async *listForeign(call: Call): AsyncGenerator<readonly ForeignBlob[]> {
    const { prefix } = this.#connection.configuration;
    for await (const contents of this.#pages(undefined, (seen) => seen, call)) {
      yield contents.flatMap(({ Key: name = "", Size }) =>
        name.startsWith(prefix) && keyOf(prefix, name) === undefined ? [{ name, sizeBytes: Size ?? 0 }] : [],
      );
    }
  }

  /** @param goOn where the listing goes on behind the last object that was seen; nowhere where nothing of interest can follow */
  async *#pages(
    from: string | undefined,
    goOn: (seen: string) => string | undefined,
    call: Call,
  ): AsyncGenerator<readonly _Object[]> {
    const { bucket, prefix } = this.#connection.configuration;
    const request = requestFor("list");
    let marker = from;
    for (;;) {
      const command = new ListObjectsCommand({
        Bucket: bucket,
        MaxKeys: 1000,
        ...(prefix === "" ? {} : { Prefix: prefix }),
        ...(marker === undefined ? {} : { Marker: marker }),
      });
      const page = await this.#connection.send((client, options) => client.send(command, options), request, call);
      const contents = page.Contents ?? [];
      yield contents;
      if (!page.IsTruncated) return;
      const seen = contents.at(-1)?.Key ?? page.NextMarker;
      const isFurther = seen !== undefined && Buffer.compare(Buffer.from(seen), Buffer.from(marker ?? "")) > 0;
      if (!isFurther) throw this.#failure("list", "the server's listing does not go on");
      marker = goOn(seen);
      if (marker === undefined) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#objects, this.#uploads]);
    await this.#connection[Symbol.asyncDispose]();
  }

  /** What is shorter than a part was never sent in parts. */
  #mayHaveParts(sizeBytes: number | undefined): boolean {
    return (sizeBytes ?? Number.POSITIVE_INFINITY) >= this.#shop.buffers.leastBytes;
  }

  async #findUploads(object: string, key: PhysicalKey, call: Call): Promise<readonly string[]> {
    const found: string[] = [];
    let markers: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (let page = 0; page < uploadPagesMax; page++) {
      const { bucket } = this.#connection.configuration;
      const command = new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: object, ...markers });
      const request = requestFor("list uploads", undefined, key);
      const answer = await this.#connection
        .send((client, options) => client.send(command, options), request, call)
        .catch((error: unknown) => {
          const { status = 0 } = refusalOf(error) ?? {};
          if (status !== 405 && status !== 501) throw error;
          call.log.warn({ key }, "the server can't list unfinished uploads");
          return undefined;
        });
      for (const { Key, UploadId } of answer?.Uploads ?? []) {
        if (Key === object && UploadId !== undefined) found.push(UploadId);
      }
      const { NextKeyMarker, NextUploadIdMarker } = answer ?? {};
      if (!answer?.IsTruncated || NextKeyMarker === undefined) break;
      markers = {
        KeyMarker: NextKeyMarker,
        ...(NextUploadIdMarker === undefined ? {} : { UploadIdMarker: NextUploadIdMarker }),
      };
    }
    return found;
  }

  #objectTraits(call: Call): Promise<ServerTraits> {
    const probe = () => probeObjects(this.#connection, this.#ownCall(call));
    this.#objects ??= probe().catch((error: unknown) => {
      this.#objects = undefined;
      throw error;
    });
    return unlessAborted(this.#objects, call);
  }

  async #uploadTraits(call: Call): Promise<ServerTraits> {
    const objects = await this.#objectTraits(call);
    const probe = () => probeUploads(this.#connection, objects, this.#ownCall(call));
    this.#uploads ??= probe().catch((error: unknown) => {
      this.#uploads = undefined;
      throw error;
    });
    return await unlessAborted(this.#uploads, call);
  }

  /** For what several callers wait for: none of them ends it for the others. */
  #ownCall({ log }: Call): Call {
    return createCall({ signal: this.#closing.signal, log });
  }

  #failure(operation: string, reason: string): StowageError {
    return new StowageError("BACKEND_FAILED", { driver: this.name, operation, reason });
  }
}
