import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { Readable } from "node:stream";
import { S3Client } from "@aws-sdk/client-s3";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import type { S3Configuration } from "./configuration.ts";
import { createKeyProvider, readUpTo } from "./credentials.ts";
import { failureFrom, type Place, type Request, refusalOf, staleCredentials } from "./failures.ts";

/** The longest time to an answer's headers where little is sent, and how fast a body goes at the least. */
const answerMsMax = 60_000;
const slowestBytesPerMs = 50;
const connectMsMax = 10_000;
const certificateBytesMax = 1024 * 1024;
/** Answers that are read whole: a page of a listing, 1000 keys of at most 1 kB each, escaped, is the largest. */
const answerBytesMax = 16 * 1024 * 1024;

/** Where nobody names a region. */
const defaultRegion = "us-east-1";

/** Sends commands: `(client, options) => client.send(new GetObjectCommand(…), options)`. May be called twice. */
export type Work<Output> = (client: S3Client, options: { readonly abortSignal: AbortSignal }) => Promise<Output>;

/** What a request may take beside its parameters. */
export interface SendOptions {
  /** Bytes of its body. */
  readonly bodyBytes?: number;
  /** The longest wait for the answer, beside what the body takes. */
  readonly answerMs?: number;
}

/**
 * One client of the SDK for a bucket. All requests go through `send`, where they get their deadline and their errors get our codes. The SDK's own retries are
 * off: only its caller knows what may be repeated.
 */
export class Connection implements AsyncDisposable {
  readonly configuration: S3Configuration;
  readonly #handler: NodeHttpHandler;
  #region: string | undefined;
  #client: S3Client;

  private constructor(configuration: S3Configuration, certificates: Buffer | undefined) {
    this.configuration = configuration;
    this.#region = configuration.region ?? (configuration.url === undefined ? undefined : defaultRegion);
    // A limit of sockets would let open readers keep writers waiting for ever; how much goes on at once is decided above.
    const sockets = { keepAlive: true, maxFreeSockets: 64 };
    this.#handler = new NodeHttpHandler({
      httpAgent: new HttpAgent(sockets),
      httpsAgent: new HttpsAgent(certificates === undefined ? sockets : { ...sockets, ca: certificates }),
      connectionTimeout: connectMsMax,
    });
    this.#client = this.#createClient();
  }

  static async open(configuration: S3Configuration): Promise<Connection> {
    const { caFile } = configuration;
    const certificates = caFile === undefined ? undefined : await readUpTo("ca_file", caFile, certificateBytesMax);
    if (certificates?.includes("-----BEGIN CERTIFICATE-----") === false) {
      throw new StowageError("CONFIG_INVALID", { key: "ca_file", reason: `${caFile} has no certificate in PEM` });
    }
    const connection = new Connection(configuration, certificates);
    // Of AWS's environment variables and files, if they name one.
    if (connection.#region === undefined) {
      connection.useRegion(await connection.#client.config.region().catch(() => defaultRegion));
    }
    return connection;
  }

  /** Names for errors. */
  place(): Place {
    const { bucket, url } = this.configuration;
    return { bucket, server: url ?? "Amazon S3", region: this.region };
  }

  /** The region that requests are signed for. */
  get region(): string {
    return this.#region ?? defaultRegion;
  }

  /** Signs for another region from now on: beside a url the region has no other meaning, and the server says which it wants. */
  useRegion(region: string): void {
    this.#region = region;
    this.#renew();
  }

  /**
   * @throws StowageError as `failureFrom` says
   */
  async send<Output>(work: Work<Output>, request: Request, call: Call, options: SendOptions = {}): Promise<Output> {
    try {
      return await this.#sendOnce(work, request, call, options);
    } catch (error) {
      const isStale = refusalOf(error)?.is(...staleCredentials) ?? false;
      // Given keys are what they are; files and roles may have newer ones.
      if (!isStale || this.configuration.credentials.kind === "keys") throw error;
      this.#renew();
      return await this.#sendOnce(work, request, call, options);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#handler.destroy();
  }

  async #sendOnce<Output>(work: Work<Output>, request: Request, call: Call, options: SendOptions) {
    throwIfAborted(call);
    const waitMs = (options.answerMs ?? answerMsMax) + (options.bodyBytes ?? 0) / slowestBytesPerMs;
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), waitMs);
    try {
      // The body of an answer comes later and is not the deadline's concern.
      const abortSignal = AbortSignal.any([call.signal, deadline.signal]);
      return await work(this.#client, { abortSignal });
    } catch (error) {
      throwIfAborted(call);
      // Of the provider of credentials.
      if (error instanceof StowageError) throw error;
      if (deadline.signal.aborted) {
        const { operation, key } = request;
        const details = {
          driver: "s3",
          operation,
          silentMs: Math.round(waitMs),
          ...(key === undefined ? {} : { key }),
        };
        throw new StowageError("BACKEND_STALLED", details);
      }
      throw failureFrom(error, request, this.place());
    } finally {
      clearTimeout(timer);
    }
  }

  #renew(): void {
    this.#client = this.#createClient();
  }

  #createClient(): S3Client {
    const { url, isPathStyle, credentials } = this.configuration;
    return new S3Client({
      ...(this.#region === undefined ? {} : { region: this.#region }),
      ...(url === undefined ? {} : { endpoint: url }),
      forcePathStyle: isPathStyle,
      credentials: createKeyProvider(credentials),
      requestHandler: this.#handler,
      maxAttempts: 1,
      // Some servers store the framing of trailing checksums as data. We compute checksums ourselves, and send them in headers.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      expectContinueHeader: false,
      streamCollector: (answer: Readable) => collect(answer),
    });
  }
}

async function collect(answer: Readable): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of answer) {
    length += (part as Buffer).length;
    if (length > answerBytesMax) throw new Error(`an answer has more than ${answerBytesMax} bytes`);
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts, length);
}
