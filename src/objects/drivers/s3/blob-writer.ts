import { createHash, type Hash } from "node:crypto";
import { StowageError } from "../../../errors/index.ts";
import type { Call } from "../../../runtime/index.ts";
import type { BodySource, PhysicalKey, StoredBlob } from "../../driver.ts";
import { checkObjectSize, partBytesAt } from "./part-buffers.ts";
import { Upload } from "./upload.ts";
import { putWhole } from "./whole-put.ts";
import type { Workshop } from "./workshop.ts";

/** Begins small: most bodies are, and it needs no room among the parts. One that is larger gets a whole part's buffer. */
const firstBytes = 256 * 1024;

/**
 * Writes one blob: in one request if it fits into a buffer, else as a multipart upload, whose parts are sent while the next is filled.
 *
 * | step | durable | a crash leaves | who goes on |
 * |---|---|---|---|
 * | upload begun | an upload without parts | the upload, which no reader and no listing of objects sees | `purge` of the key |
 * | parts | some parts | the upload with its parts | the same |
 * | upload completed, or the one request | the blob | a whole blob | – |
 */
export class BlobWriter {
  readonly #shop: Workshop;
  readonly #key: PhysicalKey;
  readonly #sizeBytes: number | undefined;
  readonly #call: Call;
  /** Of the first parts; decided when the first of them gets its buffer. */
  #partBytes: number | undefined;
  #buffer: Buffer;
  #filled = 0;
  #total = 0;
  #upload: Upload | undefined;
  #whole: Hash | undefined;

  constructor(shop: Workshop, key: PhysicalKey, body: BodySource, call: Call) {
    this.#shop = shop;
    this.#key = key;
    this.#sizeBytes = body.sizeBytes;
    this.#call = call;
    checkObjectSize(body.sizeBytes);
    if (body.sizeBytes !== undefined) this.#partBytes = shop.buffers.partBytes(body.sizeBytes);
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(body.sizeBytes ?? firstBytes, firstBytes));
  }

  /** Takes the next bytes. Waits while all buffers are on their way. */
  async add(piece: Buffer): Promise<void> {
    this.#total += piece.length;
    if (this.#total > (this.#sizeBytes ?? Number.POSITIVE_INFINITY)) throw this.#wrongSize();
    for (let at = 0; at < piece.length; ) {
      if (this.#filled === this.#buffer.length) await this.#makeRoom();
      const copied = piece.copy(this.#buffer, this.#filled, at);
      this.#filled += copied;
      at += copied;
    }
  }

  /** Sends the rest and makes the blob visible. */
  async finish(): Promise<StoredBlob> {
    if (this.#sizeBytes !== undefined && this.#total !== this.#sizeBytes) throw this.#wrongSize();
    if (this.#upload === undefined) {
      return await putWhole(this.#shop, this.#key, this.#buffer.subarray(0, this.#filled), this.#call);
    }
    this.#send(this.#upload);
    const { digestIsProven } = await this.#upload.complete(this.#total);
    const whole = this.#whole;
    const digest = digestIsProven && whole ? { digest: `sha256:${whole.digest("hex")}` } : {};
    return { key: this.#key, sizeBytes: this.#total, ...digest };
  }

  /** Takes back what was sent, if anything was. */
  async abandon(): Promise<void> {
    await this.#upload?.abort();
  }

  /** The buffers are free again; to be called last, whatever happened. */
  release(): void {
    this.#give(this.#buffer);
    this.#upload?.release();
  }

  /** More room in the same buffer, or the next one while this one is sent. */
  async #makeRoom(): Promise<void> {
    const { buffers } = this.#shop;
    this.#partBytes ??= buffers.partBytes(undefined);
    const number = (this.#upload?.parts ?? 0) + 1;
    const wanted = Math.min(
      partBytesAt(number, this.#partBytes, this.#sizeBytes),
      this.#sizeBytes ?? Number.POSITIVE_INFINITY,
    );
    if (this.#buffer.length < wanted) {
      const larger = await buffers.take(wanted, this.#call);
      this.#buffer.copy(larger, 0, 0, this.#filled);
      this.#give(this.#buffer);
      this.#buffer = larger;
      return;
    }
    if (this.#upload === undefined) {
      const traits = await this.#shop.uploads(this.#call);
      if (traits.verifiesChecksum) this.#whole = createHash("sha256");
      this.#upload = await Upload.begin(this.#shop, this.#key, traits, this.#call);
    }
    this.#send(this.#upload);
    this.#buffer = await this.#upload.nextBuffer(this.#partBytes);
  }

  /** The first one is nobody's, and small. */
  #give(buffer: Buffer): void {
    if (buffer.length > firstBytes) this.#shop.buffers.give(buffer);
  }

  /** Hands the buffer over to the upload. */
  #send(upload: Upload): void {
    const bytes = this.#buffer.subarray(0, this.#filled);
    this.#whole?.update(bytes);
    upload.send(this.#buffer, bytes);
    this.#buffer = Buffer.alloc(0);
    this.#filled = 0;
  }

  #wrongSize(): StowageError {
    const reason = `the body has ${this.#total} bytes or more, ${this.#sizeBytes} were announced`;
    return new StowageError("BACKEND_FAILED", { driver: "s3", operation: "put", key: this.#key, reason });
  }
}
