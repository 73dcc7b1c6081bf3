import { finished, Readable } from "node:stream";
import { crc32 } from "node:zlib";
import { StowageError } from "../../errors/index.ts";
import type { Call, Progress } from "../../runtime/index.ts";
import type { Descriptor } from "../types.ts";
import { findRangeFault, strongEtag } from "./range.ts";
import { Retries, TransientFailure } from "./retry.ts";
import type { RegistrySettings } from "./settings.ts";
import { codeOf, contentLength, destroyBody, type HttpAnswer, toFailure } from "./transport.ts";

/** Asks for the blob, from the registry's own URL: answers with 200, 206 or 416, and throws for any other status. */
export type BlobRequest = (headers: Readonly<Record<string, string>>, call: Call) => Promise<HttpAnswer>;

export interface BlobStreamOptions {
  readonly settings: RegistrySettings;
  readonly progress: Progress;
  /**
   * Called with `true` when the stream goes on with a range, with `false` when there was no going on, whatever its bytes were. Undefined: ranges are not
   * asked for.
   */
  readonly onPart: ((isPart: boolean) => void) | undefined;
}

/** What says of a host that was there a moment ago that it will be there again. */
const absentCodes = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "ENOTFOUND"]);

/**
 * A blob as one unbroken stream, however often its connection drops: it goes on with a range from the byte reached, or where that can't be had, with the
 * whole, of which what was handed out already is skipped. Longer or shorter than the descriptor says is an error.
 *
 * The bytes are not verified here: the reader, who computes the digest, catches a registry that lies. What is checked is checked to say what is wrong, and
 * before gigabytes have come: that a range is the one that was asked for, and that a skipped beginning is the one handed out, by its CRC-32. That costs a
 * third of what SHA-256 costs on every byte of every download, and a forger gains nothing by it, as the digest still finds him out.
 */
export class BlobStream extends Readable {
  readonly #request: BlobRequest;
  readonly #layer: Descriptor;
  readonly #progress: Progress;
  readonly #retries: Retries;
  readonly #call: Call;
  readonly #stop = new AbortController();
  #body: Readable | undefined;
  /** Bytes handed out, and their CRC-32. */
  #count = 0;
  #crc = 0;
  /** Undefined where no range is asked for, or none any more. */
  #onPart: BlobStreamOptions["onPart"];
  #etag: string | undefined;

  private constructor(request: BlobRequest, layer: Descriptor, options: BlobStreamOptions, call: Call) {
    super();
    this.#request = request;
    this.#layer = layer;
    this.#progress = options.progress;
    this.#onPart = options.onPart;
    this.#retries = new Retries(options.settings, options.progress);
    this.#call = { ...call, signal: AbortSignal.any([call.signal, this.#stop.signal]) };
  }

  /** Resolves when the registry begins to answer with the blob. */
  static async open(
    request: BlobRequest,
    layer: Descriptor,
    options: BlobStreamOptions,
    call: Call,
  ): Promise<BlobStream> {
    const stream = new BlobStream(request, layer, options, call);
    await stream.#connect();
    return stream;
  }

  override _read(): void {
    // Between two connections there is none to resume: the next one flows from its start.
    this.#body?.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#stop.abort();
    if (this.#body !== undefined) destroyBody(this.#body);
    this.#body = undefined;
    done(error);
  }

  async #connect(): Promise<void> {
    for (;;) {
      try {
        const answer = await this.#ask();
        if (answer === undefined) continue;
        if (this.destroyed) destroyBody(answer.body);
        else this.#consume(answer);
        return;
      } catch (error) {
        await this.#retries.waitAfter(this.#count > 0 ? hopeful(error) : error, this.#call);
      }
    }
  }

  /** An answer whose body may be read; `undefined` when it must be asked for in another way. */
  async #ask(): Promise<HttpAnswer | undefined> {
    const isPart = this.#count > 0 && this.#onPart !== undefined;
    const headers: Record<string, string> = isPart ? { range: `bytes=${this.#count}-` } : {};
    if (isPart && this.#etag !== undefined) headers["if-range"] = this.#etag;
    const answer = await this.#request(headers, this.#call);
    const { host } = answer.url;
    if (answer.status === 200) {
      const announced = contentLength(answer);
      if (announced !== undefined && announced !== this.#layer.size) {
        destroyBody(answer.body);
        throw this.#sizeMismatch(announced);
      }
      this.#etag = strongEtag(answer);
      return answer;
    }
    const fault = findRangeFault(answer, this.#count, this.#layer.size, this.#etag);
    if (isPart && fault === undefined) {
      this.#onPart?.(true);
      return answer;
    }
    destroyBody(answer.body);
    if (!isPart) {
      throw new StowageError("REGISTRY_ANSWER_INVALID", {
        host,
        reason: "it answers with a range that nobody asked for",
      });
    }
    // Whoever gets ranges wrong once is not asked for them again.
    this.#onPart = undefined;
    this.#progress.tell(`${host} ${fault}: beginning layer ${this.#layer.digest} again`);
    return undefined;
  }

  #consume(answer: HttpAnswer): void {
    const { body } = answer;
    const { host } = answer.url;
    const isWhole = answer.status === 200;
    let toSkip = isWhole ? this.#count : 0;
    let skippedCrc = 0;
    const isCurrent = () => this.#body === body && !this.destroyed;
    this.#body = body;
    body.on("data", (chunk: Buffer) => {
      if (!isCurrent()) return;
      let bytes = chunk;
      if (toSkip > 0) {
        const skipped = bytes.subarray(0, toSkip);
        bytes = bytes.subarray(skipped.length);
        toSkip -= skipped.length;
        skippedCrc = crc32(skipped, skippedCrc);
        this.#retries.repeated(skipped.length);
        if (toSkip === 0 && skippedCrc !== this.#crc) {
          this.destroy(this.#invalid(host, "has changed since its beginning was read"));
          return;
        }
        if (bytes.length === 0) return;
      }
      if (this.#count + bytes.length > this.#layer.size) {
        const isMore = "is longer than the range that was announced";
        this.destroy(isWhole ? this.#sizeMismatch(this.#count + bytes.length) : this.#invalid(host, isMore));
        return;
      }
      this.#count += bytes.length;
      this.#crc = crc32(bytes, this.#crc);
      this.#retries.progressed(bytes.length);
      if (!this.push(bytes)) body.pause();
    });
    finished(body, { writable: false }, (error) => {
      if (!isCurrent()) return;
      this.#body = undefined;
      // What is complete needs no proper end.
      if (this.#count === this.#layer.size && toSkip === 0 && !this.#call.signal.aborted) this.push(null);
      else void this.#goOn(this.#broken(error ?? undefined, host));
    });
  }

  async #goOn(failure: Error): Promise<void> {
    try {
      await this.#retries.waitAfter(failure, this.#call);
      await this.#connect();
    } catch (error) {
      if (!this.destroyed) this.#onPart?.(false);
      this.destroy(error as Error);
    }
  }

  /** What it means that a body ended before the blob did. */
  #broken(error: unknown, host: string): Error {
    // Some proxies end a body properly when what they read from breaks off.
    if (error === undefined) {
      return new TransientFailure(`${host} sent too little`, () => this.#sizeMismatch(this.#count));
    }
    const failure = toFailure(error, host, this.#call);
    if (!(failure instanceof TransientFailure)) return failure;
    const final = (attempts: number) => {
      const tries = attempts === 1 ? "" : `, at attempt ${attempts}`;
      const reason = `the connection broke after ${this.#count} of ${this.#layer.size} bytes${tries}`;
      return new StowageError("REGISTRY_UNREACHABLE", { host, reason }, { cause: failure.cause });
    };
    return new TransientFailure(failure.message, final, { cause: failure.cause });
  }

  #sizeMismatch(actual: number): StowageError {
    const what = `layer ${this.#layer.digest}`;
    return new StowageError("IMAGE_SIZE_MISMATCH", { what, expected: this.#layer.size, actual });
  }

  #invalid(host: string, reason: string): StowageError {
    return new StowageError("REGISTRY_ANSWER_INVALID", { host, reason: `layer ${this.#layer.digest} ${reason}` });
  }
}

/** A registry that began to answer and can't be reached now is expected back. */
function hopeful(error: unknown): unknown {
  if (!(error instanceof StowageError) || error.code !== "REGISTRY_UNREACHABLE") return error;
  if (!absentCodes.has(codeOf(error.cause) ?? "")) return error;
  return new TransientFailure(`${String(error.details.host)} can't be reached`, () => error, { cause: error.cause });
}
