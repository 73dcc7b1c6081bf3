import { Agent, type Dispatcher } from "undici";
import type { Call } from "../../../runtime/index.ts";
import { throwIfAborted } from "../../../runtime/index.ts";
import { type Attempt, exchangeFailure, failed, type Status, silentMs } from "./failure.ts";

export type Body = Buffer | string | AsyncIterable<Buffer>;

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  readonly origin: string;
  /** As it is sent: percent-encoded already, and not normalised any more. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Body;
  /** How long the other side may think before it answers. */
  readonly answerTimeoutMs?: number;
}

export interface Answer extends Status {
  /** Must be read to its end, or discarded, or destroyed. */
  readonly body: Dispatcher.ResponseData["body"];
}

/**
 * More than anybody may use at once (a limit around each driver says how many operations run). Bodies may be read from the same server while
 * they are written: few connections would wait for each other.
 */
const connectionsMax = 256;

/** HTTP to Swift and Keystone, within bounds. Redirects are not followed: a token would go along. */
export class Transport implements AsyncDisposable {
  readonly #agent: Agent;

  constructor({ ca, insecure }: { readonly ca: string | undefined; readonly insecure: boolean }) {
    this.#agent = new Agent({
      connections: connectionsMax,
      allowH2: false,
      maxHeaderSize: 64 * 1024,
      headersTimeout: silentMs,
      bodyTimeout: silentMs,
      connect: { timeout: 10_000, rejectUnauthorized: !insecure, ...(ca === undefined ? {} : { ca }) },
    });
  }

  async send(request: HttpRequest, attempt: Attempt, call: Call): Promise<Answer> {
    throwIfAborted(call);
    const { method, origin, path, headers, body, answerTimeoutMs } = request;
    try {
      return await this.#agent.request({
        method,
        origin,
        path,
        headers: { "user-agent": "stowage", "accept-encoding": "identity", ...headers },
        // Any iterable is sent as it comes, though the type names streams only.
        body: (body as Dispatcher.DispatchOptions["body"]) ?? null,
        signal: call.signal,
        ...(answerTimeoutMs === undefined ? {} : { headersTimeout: answerTimeoutMs }),
      });
    } catch (error) {
      throw exchangeFailure(error, attempt, call);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

/** Lets go of a body that nobody wants, in a way that keeps the connection if it is short. */
export async function discard(answer: Answer, call: Call): Promise<void> {
  const signal = AbortSignal.any([call.signal, AbortSignal.timeout(5000)]);
  // What is left of it, and how it ends, changes nothing.
  await answer.body.dump({ limit: 16 * 1024, signal }).catch(() => undefined);
}

/** A whole body of at most `bytesMax`. */
async function readAll(answer: Answer, bytesMax: number, attempt: Attempt, call: Call): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      bytes += piece.length;
      if (bytes > bytesMax) throw failed(attempt, `the answer has more than ${bytesMax} bytes`);
      pieces.push(piece);
    }
  } catch (error) {
    throw exchangeFailure(error, attempt, call);
  }
  return Buffer.concat(pieces, bytes);
}

/** A JSON body of at most `bytesMax`, not yet looked at. */
export async function readJson(answer: Answer, bytesMax: number, attempt: Attempt, call: Call): Promise<unknown> {
  const bytes = await readAll(answer, bytesMax, attempt, call);
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    // Without its cause: the parser quotes what it read, which may be a token.
    throw failed(attempt, "the answer is not JSON");
  }
}
