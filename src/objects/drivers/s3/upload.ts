import { createHash } from "node:crypto";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { StowageError } from "../../../errors/index.ts";
import { type Call, createCall, retry } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import { refusalOf } from "./failures.ts";
import { partsMax } from "./part-buffers.ts";
import { objectOf, requestFor, sha256, withContentDigest } from "./requests.ts";
import type { ServerTraits } from "./server-traits.ts";
import { findBlob, mayBeThere, storageParameters, type Workshop } from "./workshop.ts";

/** Parts on their way at once, of one upload. */
const inFlightMax = 4;
/** A server puts the parts together before it answers. */
const completeMsMax = 10 * 60_000;

interface Part {
  readonly PartNumber: number;
  readonly ETag: string;
  readonly checksum: Buffer;
}

interface Target {
  readonly Bucket: string;
  readonly Key: string;
  readonly UploadId: string;
}

/** A multipart upload: parts are retried singly, and what is not completed is aborted. */
export class Upload {
  readonly #shop: Workshop;
  readonly #key: PhysicalKey;
  readonly #traits: ServerTraits;
  readonly #call: Call;
  readonly #target: Target;
  readonly #done: Part[] = [];
  readonly #free: Buffer[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  #failure: { readonly reason: unknown } | undefined;
  #isCompleted = false;
  /** Parts handed over so far. */
  parts = 0;

  private constructor(shop: Workshop, key: PhysicalKey, traits: ServerTraits, target: Target, call: Call) {
    this.#shop = shop;
    this.#key = key;
    this.#traits = traits;
    this.#target = target;
    this.#call = call;
  }

  static async begin(shop: Workshop, key: PhysicalKey, traits: ServerTraits, call: Call): Promise<Upload> {
    const { configuration } = shop.connection;
    const target = { Bucket: configuration.bucket, Key: objectOf(configuration.prefix, key) };
    const command = new CreateMultipartUploadCommand({
      ...target,
      ...(traits.verifiesChecksum ? { ChecksumAlgorithm: "SHA256" } : {}),
      ...storageParameters(configuration),
    });
    const { UploadId } = await shop.connection.send(
      (client, options) => client.send(command, options),
      requestFor("put", target.Key, key),
      call,
    );
    if (!UploadId) throw putFailure(key, "the server began an upload without a name");
    return new Upload(shop, key, traits, { ...target, UploadId }, call);
  }

  /** Sends the bytes, which lie in the buffer, as the next part. The buffer is the upload's now. */
  send(buffer: Buffer, bytes: Buffer): void {
    const number = ++this.parts;
    if (number > partsMax) throw new StowageError("LIMIT_EXCEEDED", { limit: "partsMax", max: partsMax });
    const sending = this.#sendPart(number, bytes)
      .then((part) => {
        this.#done.push(part);
      })
      .catch((reason: unknown) => {
        this.#failure ??= { reason };
      })
      .finally(() => {
        this.#free.push(buffer);
        this.#inFlight.delete(sending);
      });
    this.#inFlight.add(sending);
  }

  /** A buffer for the next part: a new one while there is room, else the first that comes back. */
  async nextBuffer(bytes: number): Promise<Buffer> {
    for (;;) {
      if (this.#failure) throw this.#failure.reason;
      const free = this.#free.pop();
      if (free !== undefined) return free;
      const fresh = this.#inFlight.size < inFlightMax ? this.#shop.buffers.tryTake(bytes) : undefined;
      if (fresh !== undefined) return fresh;
      await Promise.race(this.#inFlight);
    }
  }

  /** Makes the parts a blob. `digestIsProven`: the server vouches for the digests of the parts and for their order. */
  async complete(sizeBytes: number): Promise<{ readonly digestIsProven: boolean }> {
    await Promise.all(this.#inFlight);
    if (this.#failure) throw this.#failure.reason;
    const { connection, retryPolicy } = this.#shop;
    const parts = this.#done.toSorted((one, other) => one.PartNumber - other.PartNumber);
    const checksum = `${sha256(Buffer.concat(parts.map((part) => part.checksum))).toString("base64")}-${parts.length}`;
    const command = new CompleteMultipartUploadCommand({
      ...this.#target,
      ...(this.#traits.refusesOverwrite ? { IfNoneMatch: "*" } : {}),
      MultipartUpload: {
        Parts: parts.map((part) => ({
          PartNumber: part.PartNumber,
          ETag: part.ETag,
          ...(this.#traits.verifiesChecksum ? { ChecksumSHA256: part.checksum.toString("base64") } : {}),
        })),
      },
    });
    const send = async (attempt: number) => {
      try {
        const request = requestFor("put", this.#target.Key, this.#key);
        const answer = await connection.send((client, options) => client.send(command, options), request, this.#call, {
          answerMs: completeMsMax,
        });
        this.#isCompleted = true;
        return answer.ChecksumSHA256;
      } catch (error) {
        // A completed upload is gone: the attempt before this one took effect, and its answer was lost.
        const isGone = attempt > 1 && (refusalOf(error)?.is("NoSuchUpload") ?? false);
        if (!isGone && !mayBeThere(error)) throw error;
        const found = await findBlob(connection, this.#key, this.#call);
        if (found === undefined) throw error;
        if (!found.isSame(sizeBytes, checksum, () => compositeTag(parts))) {
          throw new StowageError("BACKEND_KEY_EXISTS", { driver: "s3", key: this.#key }, { cause: error });
        }
        if (isGone) this.#isCompleted = true;
        else await this.abort();
        return found.checksum;
      }
    };
    const stored = await retry(send, retryPolicy, this.#call);
    return { digestIsProven: this.#traits.verifiesChecksum && stored === checksum };
  }

  /** Takes back all parts, if the upload has not been completed; also when the call has been aborted. Its own failure is only logged: one came first. */
  async abort(): Promise<void> {
    await Promise.all(this.#inFlight);
    if (this.#isCompleted) return;
    this.#isCompleted = true;
    const call = createCall({ log: this.#call.log });
    const command = new AbortMultipartUploadCommand(this.#target);
    const request = requestFor("abort upload", this.#target.Key, this.#key);
    const { connection, retryPolicy } = this.#shop;
    try {
      await retry(
        () => connection.send((client, options) => client.send(command, options), request, call),
        retryPolicy,
        call,
      );
    } catch (error) {
      if (refusalOf(error)?.is("NoSuchUpload")) return;
      this.#call.log.warn({ err: error, key: this.#key }, "upload left behind");
    }
  }

  release(): void {
    for (const buffer of this.#free.splice(0)) this.#shop.buffers.give(buffer);
  }

  async #sendPart(number: number, bytes: Buffer): Promise<Part> {
    const checksum = sha256(bytes);
    const parameters = {
      ...this.#target,
      PartNumber: number,
      Body: bytes,
      ContentLength: bytes.length,
      ...(this.#traits.verifiesChecksum ? { ChecksumSHA256: checksum.toString("base64") } : {}),
    };
    const { connection, retryPolicy } = this.#shop;
    const { ETag } = await retry(
      () =>
        connection.send(
          (client, options) => client.send(withContentDigest(new UploadPartCommand(parameters), checksum), options),
          requestFor("put", this.#target.Key, this.#key),
          this.#call,
          { bodyBytes: bytes.length },
        ),
      retryPolicy,
      this.#call,
    );
    if (!ETag) throw putFailure(this.#key, "the server took a part and gave it no ETag");
    return { PartNumber: number, ETag, checksum };
  }
}

/** The ETag that S3 gives an object of parts, as far as those of the parts are digests. */
function compositeTag(parts: readonly Part[]): string | undefined {
  const tags = parts.map(({ ETag }) => ETag.replaceAll('"', ""));
  if (!tags.every((tag) => /^[0-9a-f]{32}$/.test(tag))) return undefined;
  return `${createHash("md5")
    .update(Buffer.from(tags.join(""), "hex"))
    .digest("hex")}-${tags.length}`;
}

function putFailure(key: PhysicalKey, reason: string): StowageError {
  return new StowageError("BACKEND_FAILED", { driver: "s3", operation: "put", key, reason });
}
