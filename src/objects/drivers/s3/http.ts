import { createRequire } from "node:module";
import { Readable } from "node:stream";
import type { Dispatcher, Agent as UndiciAgent } from "undici";
import { WholeBody } from "../../driver.ts";

/** Not by undici's main module, which brings fetch, web sockets, caches and mocks besides: they take 10 MB. */
const Agent = createRequire(import.meta.url)("undici/lib/dispatcher/agent.js") as typeof UndiciAgent;

const connectMsMax = 10_000;
/** Answers up to this length are handed over as a whole: a stream costs more than they do. */
const shortBytesMax = 1024 * 1024;

export interface HttpRequest {
  readonly origin: string;
  readonly method: Dispatcher.HttpMethod;
  /** As it is sent, with its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Buffer | Uint8Array | string | undefined;
  /** Its answer's body is a stream, whatever its length: of a range, some servers announce more than they send. */
  readonly isStreamed?: boolean;
}

type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface Answer {
  readonly statusCode: number;
  readonly headers: AnswerHeaders;
  /** All of it where it is short; else it must be read to its end or destroyed. */
  readonly body: Buffer | Readable;
}

/** The other side took longer than it may. */
export class Silence extends Error {
  override readonly name = "Silence";
}

/**
 * HTTP to the bucket's server: also the request handler of the SDK's client, with its own place for connections that are kept. Redirects are not followed:
 * a signature would go along. There is no limit of connections, for open readers could keep writers waiting for ever; how much goes on at once is decided above.
 */
export class Http {
  readonly metadata = { handlerProtocol: "http/1.1" };
  readonly #agent: UndiciAgent;

  /** @param certificates of those who may sign the server's, in PEM */
  constructor(certificates: Buffer | undefined) {
    this.#agent = new Agent({
      allowH2: false,
      maxHeaderSize: 64 * 1024,
      // Each exchange has its deadline, and its reader watches the body.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: connectMsMax, ...(certificates === undefined ? {} : { ca: certificates }) },
    });
  }

  /** @param waitMs for the answer to begin, from the moment of the call on; a short one may not be silent for longer either */
  async exchange(request: Promise<HttpRequest>, signal: AbortSignal, waitMs?: number): Promise<Answer> {
    const exchange = new Exchange(signal, waitMs);
    request.then(
      (ready) => exchange.start(this.#agent, ready),
      (error: unknown) => exchange.fail(error),
    );
    return await exchange.answer;
  }

  /** For the SDK. */
  async handle(
    request: SdkRequest,
    options?: { readonly abortSignal?: unknown },
  ): Promise<{ response: ReturnType<typeof responseOf> }> {
    const { protocol, hostname, port, method, path, query, headers, body } = request;
    const asked = queryOf(query);
    const ready = {
      origin: `${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`,
      method,
      path: asked === "" ? path : `${path}?${asked}`,
      headers,
      body,
    };
    const signal = (options?.abortSignal as AbortSignal | undefined) ?? new AbortController().signal;
    const answer = await this.exchange(Promise.resolve(ready), signal);
    return { response: responseOf(answer) };
  }

  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  async destroy(): Promise<void> {
    await this.#agent.destroy();
  }
}

/** As the SDK reads it: the body is a stream, whatever its length. */
export function responseOf({ statusCode, headers, body }: Answer) {
  return { statusCode, headers: singleValues(headers), body: body instanceof Readable ? body : new WholeBody(body) };
}

interface SdkRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: HttpRequest["body"];
}

/** One request and its answer, until that has begun; a short one until it has ended. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly answer: Promise<Answer>;
  readonly #signal: AbortSignal;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #settle: { resolve(answer: Answer): void; reject(reason: unknown): void };
  #isHead = false;
  #isStreamed = false;
  #controller: Dispatcher.DispatchController | undefined;
  #failure: { readonly reason: Error } | undefined;
  #begun: Omit<Answer, "body"> | undefined;
  #bytes: Buffer | undefined;
  #filled = 0;
  #stream: AnswerStream | undefined;

  constructor(signal: AbortSignal, waitMs: number | undefined) {
    const { promise, ...settle } = Promise.withResolvers<Answer>();
    this.answer = promise;
    this.#settle = settle;
    this.#signal = signal;
    if (waitMs !== undefined) this.#timer = setTimeout(() => this.fail(new Silence("no answer")), waitMs);
    signal.addEventListener("abort", this.#abort);
    if (signal.aborted) this.#abort();
  }

  start(dispatcher: Dispatcher, { body, isStreamed = false, ...request }: HttpRequest): void {
    if (this.#failure !== undefined) return;
    this.#isHead = request.method === "HEAD";
    this.#isStreamed = isStreamed;
    try {
      dispatcher.dispatch({ ...request, body: body ?? null }, this);
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error: unknown): void {
    const reason = error instanceof Error ? error : new Error(String(error));
    this.#failure ??= { reason };
    this.#end();
    this.#settle.reject(error);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#failure !== undefined) controller.abort(this.#failure.reason);
  }

  onResponseStart(controller: Dispatcher.DispatchController, statusCode: number, headers: AnswerHeaders): void {
    if (statusCode < 200) return;
    this.#begun = { statusCode, headers };
    const bytes = this.#isHead || statusCode === 204 ? 0 : contentLength(headers);
    if (bytes !== undefined && bytes <= shortBytesMax && !this.#isStreamed) {
      this.#bytes = Buffer.allocUnsafeSlow(bytes);
      return;
    }
    this.#stream = new AnswerStream(controller);
    this.#end();
    this.#settle.resolve({ ...this.#begun, body: this.#stream });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#bytes === undefined) {
      if (this.#stream?.push(chunk) === false) controller.pause();
      return;
    }
    this.#timer?.refresh();
    // What has more bytes than it said, or fewer, is a failure of the protocol: the parser tells.
    this.#filled += chunk.copy(this.#bytes, this.#filled);
  }

  onResponseEnd(): void {
    this.#stream?.push(null);
    if (this.#begun === undefined || this.#bytes === undefined) return;
    this.#end();
    if (this.#filled === this.#bytes.length) this.#settle.resolve({ ...this.#begun, body: this.#bytes });
    else this.#settle.reject(new Error(`the answer ended after ${this.#filled} of ${this.#bytes.length} bytes`));
  }

  onResponseError(_: unknown, error: Error): void {
    if (this.#stream === undefined) this.fail(error);
    else this.#stream.destroy(error);
  }

  readonly #abort = (): void => this.fail(this.#signal.reason);

  #end(): void {
    clearTimeout(this.#timer);
    this.#signal.removeEventListener("abort", this.#abort);
  }
}

/** The bytes of a long answer, as they are asked for; to destroy it ends the connection. */
class AnswerStream extends Readable {
  readonly #controller: Dispatcher.DispatchController;

  constructor(controller: Dispatcher.DispatchController) {
    super();
    this.#controller = controller;
    // It may break before its reader listens; who reads it then is told.
    this.on("error", () => {});
  }

  override _read(): void {
    this.#controller.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#controller.abort(error ?? new Error("not read to its end"));
    done(error);
  }
}

/** `Content-Length`, if there is a valid one. */
export function contentLength(headers: AnswerHeaders): number | undefined {
  const value = headers["content-length"];
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

function singleValues(headers: AnswerHeaders): Record<string, string> {
  const single: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined) single[name] = typeof value === "string" ? value : value.join(", ");
  }
  return single;
}

/** As it was signed: escaped by RFC 3986. */
function queryOf(query: SdkRequest["query"]): string {
  return Object.entries(query ?? {})
    .flatMap(([name, values]) => [values ?? ""].flat().map((value) => `${escaped(name)}=${escaped(value)}`))
    .join("&");
}

function escaped(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}
