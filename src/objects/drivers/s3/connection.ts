import type { Readable } from "node:stream";
import { type DeleteObjectCommand, type GetObjectCommand, type PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted, unlessAborted } from "../../../runtime/index.ts";
import type { S3Configuration } from "./configuration.ts";
import { createKeyProvider, readUpTo } from "./credentials.ts";
import { failureFrom, type Place, type Request, refusalOf, staleCredentials } from "./failures.ts";
import { type Answer, Http, responseOf, Silence } from "./http.ts";
import { type BlobRequest, SignedRequests } from "./signed-requests.ts";

/** The longest time to an answer's headers where little is sent, and how fast a body goes at the least. */
const answerMsMax = 60_000;
const slowestBytesPerMs = 50;
const certificateBytesMax = 1024 * 1024;
/** Answers that are read whole: a page of a listing, 1000 keys of at most 1 kB each, escaped, is the largest. */
const answerBytesMax = 16 * 1024 * 1024;

/** Where nobody names a region. */
const defaultRegion = "us-east-1";

/** Sends commands: `(client, options) => client.send(new GetObjectCommand(…), options)`. May be called twice. */
export type Work<Output> = (client: S3Client, options: { readonly abortSignal: AbortSignal }) => Promise<Output>;

/** What the SDK calls a request about one blob. */
export type BlobCommand = GetObjectCommand | PutObjectCommand | DeleteObjectCommand;

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
  readonly #http: Http;
  #region: string | undefined;
  #client: S3Client;
  /** Of this client. */
  #signed: Promise<SignedRequests | undefined> | undefined;

  private constructor(configuration: S3Configuration, certificates: Buffer | undefined) {
    this.configuration = configuration;
    this.#region = configuration.region ?? (configuration.url === undefined ? undefined : defaultRegion);
    this.#http = new Http(certificates);
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
    return await this.#withNewerKeys(() => this.#sendOnce(work, request, call, options));
  }

  /**
   * Sends a request about one blob, the short way. What is no plain success is for the SDK to judge: it is given the answer to the `command` that stands for
   * the request.
   * @throws StowageError as `failureFrom` says
   */
  async exchange(blob: BlobRequest, command: () => BlobCommand, request: Request, call: Call): Promise<Answer> {
    return await this.#withNewerKeys(() => this.#exchangeOnce(blob, command, request, call));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http.destroy();
  }

  async #withNewerKeys<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const isStale = refusalOf(error)?.is(...staleCredentials) ?? false;
      // Given keys are what they are; files and roles may have newer ones.
      if (!isStale || this.configuration.credentials.kind === "keys") throw error;
      this.#renew();
      return await work();
    }
  }

  async #exchangeOnce(blob: BlobRequest, command: () => BlobCommand, request: Request, call: Call): Promise<Answer> {
    throwIfAborted(call);
    const bodyBytes = blob.body?.bytes.length ?? 0;
    const answer = await this.#tryShortWay(blob, answerMsMax + bodyBytes / slowestBytesPerMs, request, call);
    if (answer !== undefined && isPlainSuccess(blob, answer)) return answer;
    const judged = judgedBySdk(command(), answer);
    await this.#sendOnce((client, options) => client.send(judged.command, options), request, call, { bodyBytes });
    return await judged.answer;
  }

  async #tryShortWay(blob: BlobRequest, waitMs: number, request: Request, call: Call): Promise<Answer | undefined> {
    try {
      this.#signed ??= SignedRequests.of(this.#client, this.configuration).catch((error: unknown) => {
        this.#signed = undefined;
        throw error;
      });
      const signed = await unlessAborted(this.#signed, call);
      return signed && (await this.#http.exchange(signed.sign(blob), call.signal, waitMs));
    } catch (error) {
      throw this.#failureOf(error, error instanceof Silence ? waitMs : undefined, request, call);
    }
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
      throw this.#failureOf(error, deadline.signal.aborted ? waitMs : undefined, request, call);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param silentMs how long nothing came, where that is why */
  #failureOf(error: unknown, silentMs: number | undefined, request: Request, call: Call): unknown {
    throwIfAborted(call);
    // Of the provider of credentials.
    if (error instanceof StowageError) return error;
    if (silentMs === undefined) return failureFrom(error, request, this.place());
    const { operation, key } = request;
    const details = { driver: "s3", operation, silentMs: Math.round(silentMs), ...(key === undefined ? {} : { key }) };
    return new StowageError("BACKEND_STALLED", details);
  }

  #renew(): void {
    this.#client = this.#createClient();
    this.#signed = undefined;
  }

  #createClient(): S3Client {
    const { url, isPathStyle, credentials } = this.configuration;
    return new S3Client({
      ...(this.#region === undefined ? {} : { region: this.#region }),
      ...(url === undefined ? {} : { endpoint: url }),
      forcePathStyle: isPathStyle,
      credentials: createKeyProvider(credentials),
      requestHandler: this.#http,
      maxAttempts: 1,
      // Some servers store the framing of trailing checksums as data. We compute checksums ourselves, and send them in headers.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      expectContinueHeader: false,
      streamCollector: (answer: Readable) => collect(answer),
    });
  }
}

/** An answer that needs no judgement: a put that worked is answered with headers alone. */
function isPlainSuccess({ method }: BlobRequest, { statusCode, body }: Answer): boolean {
  if (statusCode !== 200 && statusCode !== 204 && statusCode !== 206) return false;
  return method === "GET" || (Buffer.isBuffer(body) && body.length === 0);
}

/** The command, as far as the SDK reads the answer to it: the one that is given, or else the one that it asks for itself. */
function judgedBySdk(
  command: BlobCommand,
  given: Answer | undefined,
): { command: GetObjectCommand; answer: Promise<Answer> } {
  const { promise: answer, resolve } = Promise.withResolvers<Answer>();
  const judged = command as GetObjectCommand;
  judged.middlewareStack.add(
    (next) => async (args) => {
      const result =
        given === undefined ? await next(args) : { response: responseOf(given), output: { $metadata: {} } };
      resolve(result.response as Answer);
      return result;
    },
    { step: "deserialize", priority: "low", name: "givenAnswer" },
  );
  return { command: judged, answer };
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
