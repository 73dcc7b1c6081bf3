import { isIP } from "node:net";
import type { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { messageOf, StowageError } from "../../errors/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import { type AddressClass, isLoopbackHost, mayLeadTo } from "./addresses.ts";
import { Agent, request } from "./http-agent.ts";
import { FIRST_DELAY_MS, parseRetryAfter, RETRY_AFTER_MAX_MS, TransientFailure } from "./retry.ts";
import type { RegistrySettings } from "./settings.ts";

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent to the host of `url` only, never along with a redirect to another. */
  readonly authorization: string | undefined;
  readonly body?: string;
  /** `false`: a redirect is the answer. */
  readonly follow?: boolean;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Must be read to its end, or discarded, or destroyed. */
  readonly body: Dispatcher.ResponseData["body"];
  /** Who answered, redirects followed. */
  readonly url: URL;
}

const REDIRECTS_MAX = 10;
const redirects = new Set([301, 302, 303, 307, 308]);
const transientStatus = new Set([408, 429, 500, 502, 503, 504]);
const transientCodes = new Set([
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EAI_AGAIN",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
]);

/**
 * HTTP to one registry and to where it sends us. Redirects are followed by hand. The registry itself may have any address, as the user
 * named it; other hosts must not be nearer to us than it is, by their literal or resolved address, and the checked address is the one
 * that is connected to.
 */
export class Transport implements AsyncDisposable {
  readonly #registry: URL;
  readonly #settings: RegistrySettings;
  readonly #own: Agent;
  readonly #others: Agent;
  /** Until the registry's address is known it counts as public: the class that may lead nowhere. */
  #registryClass: AddressClass = "public";
  /** Plain HTTP is accepted of other hosts as well. */
  readonly #acceptPlain: boolean;

  constructor(registry: URL, options: { readonly insecure: boolean }, settings: RegistrySettings) {
    this.#registry = registry;
    this.#settings = settings;
    this.#acceptPlain = options.insecure || isLoopbackHost(registry.hostname);
    const literal = literalAddress(registry.hostname);
    if (literal !== undefined) this.#registryClass = settings.classify(literal);
    const agent = (check: (hostname: string, addresses: readonly string[]) => void) =>
      new Agent({
        connections: 16,
        allowH2: false,
        maxHeaderSize: 64 * 1024,
        headersTimeout: settings.headersTimeoutMs,
        bodyTimeout: settings.stallTimeoutMs,
        connect: {
          timeout: settings.connectTimeoutMs,
          rejectUnauthorized: !options.insecure,
          lookup: (hostname, lookupOptions, callback) => {
            settings.resolveHost(hostname).then(
              (found) => {
                try {
                  check(
                    hostname,
                    found.map((entry) => entry.address),
                  );
                  const [first] = found;
                  if (first === undefined)
                    throw Object.assign(new Error(`no address of ${hostname}`), { code: "ENOTFOUND" });
                  if (lookupOptions.all) callback(null, [...found]);
                  else callback(null, first.address, first.family);
                } catch (error) {
                  callback(error as NodeJS.ErrnoException, "", 0);
                }
              },
              (error: NodeJS.ErrnoException) => callback(error, "", 0),
            );
          },
        },
      });
    this.#own = agent((_, addresses) => {
      const classes = addresses.map(settings.classify);
      // Of several addresses the one that gives the fewest rights counts.
      const order = ["public", "private", "loopback", "linkLocal"] as const;
      this.#registryClass = order.find((name) => classes.includes(name)) ?? "public";
    });
    this.#others = agent((hostname, addresses) => {
      for (const address of addresses) this.#checkAddress(address, hostname);
    });
  }

  /**
   * Sends a request and follows redirects.
   * @throws StowageError `REGISTRY_UNREACHABLE`, `REGISTRY_REDIRECT_REFUSED`, `REGISTRY_ANSWER_INVALID`; TransientFailure
   */
  async send(original: HttpRequest, call: Call): Promise<HttpAnswer> {
    let { url, authorization } = original;
    for (let hops = 0; ; hops++) {
      const answer = await this.#exchange({ ...original, url, authorization }, call);
      if (transientStatus.has(answer.status)) throw await this.#unavailable(answer, call);
      if (!redirects.has(answer.status) || original.follow === false) return answer;
      await discard(answer, call);
      if (original.method === "POST") return answer;
      if (hops >= REDIRECTS_MAX) {
        throw new StowageError("REGISTRY_ANSWER_INVALID", {
          host: original.url.host,
          reason: `more than ${REDIRECTS_MAX} redirects`,
        });
      }
      const target = this.#redirectTarget(url, answer.headers.location);
      if (target.host !== url.host || target.protocol !== url.protocol) authorization = undefined;
      url = target;
    }
  }

  /**
   * Refuses a URL that the registry named (redirect, token service) if it is plain where it must not be, or leads to an address that is
   * nearer to us than the registry.
   * @throws StowageError `REGISTRY_REDIRECT_REFUSED`
   */
  checkTarget(target: URL): void {
    if (target.protocol !== "https:" && !(target.protocol === "http:" && this.#acceptPlain)) {
      throw this.#refused(target.host, `${target.protocol.slice(0, 20)} is not accepted, only https:`);
    }
    if (target.hostname === this.#registry.hostname) return;
    const literal = literalAddress(target.hostname);
    if (literal !== undefined) this.#checkAddress(literal, target.host);
    else if (isLoopbackHost(target.hostname)) this.#checkClass("loopback", target.hostname, target.host);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#own.destroy(), this.#others.destroy()]);
  }

  async #exchange(message: HttpRequest, call: Call): Promise<HttpAnswer> {
    throwIfAborted(call);
    const { url, method } = message;
    const { hostWaits } = this.#settings;
    await hostWaits.end(this.#registry.host, url.host, RETRY_AFTER_MAX_MS, this.#settings, call);
    try {
      const agent = url.hostname === this.#registry.hostname ? this.#own : this.#others;
      const answer = await request(agent, url, {
        method,
        headers: {
          "user-agent": "stowage",
          "accept-encoding": "identity",
          ...message.headers,
          ...(message.authorization === undefined ? {} : { authorization: message.authorization }),
        },
        body: message.body ?? null,
        signal: call.signal,
      });
      return { status: answer.statusCode, headers: answer.headers, body: answer.body, url };
    } catch (error) {
      throw toFailure(error, url.host, call);
    }
  }

  #redirectTarget(from: URL, location: string | string[] | undefined): URL {
    const target = typeof location === "string" ? URL.parse(location, from.href) : null;
    if (target === null) {
      throw new StowageError("REGISTRY_ANSWER_INVALID", {
        host: from.host,
        reason: "a redirect without a valid target",
      });
    }
    this.checkTarget(target);
    return target;
  }

  #checkAddress(address: string, host: string): void {
    this.#checkClass(this.#settings.classify(address), address, host);
  }

  #checkClass(found: AddressClass, address: string, host: string): void {
    if (mayLeadTo(this.#registryClass, found)) return;
    const names = { public: "public", private: "private", loopback: "loopback", linkLocal: "link-local" };
    throw this.#refused(host, `${address} is a ${names[found]} address`);
  }

  #refused(target: string, reason: string): StowageError {
    return new StowageError("REGISTRY_REDIRECT_REFUSED", { host: this.#registry.host, target, reason });
  }

  async #unavailable(answer: HttpAnswer, call: Call): Promise<TransientFailure> {
    await discard(answer, call);
    const { host } = answer.url;
    const { status } = answer;
    const after = answer.headers["retry-after"];
    const { clock, hostWaits } = this.#settings;
    const retryAfterMs = parseRetryAfter(typeof after === "string" ? after : undefined, clock.now());
    const pauseMs = retryAfterMs ?? (status === 429 ? FIRST_DELAY_MS : 0);
    // Who asks for more is not asked again by this request; others may try their luck.
    if (pauseMs > 0 && pauseMs <= RETRY_AFTER_MAX_MS) hostWaits.begin(this.#registry.host, host, pauseMs, clock);
    const minutes = Math.ceil((retryAfterMs ?? 0) / 60_000);
    const hint = minutes > 1 ? { hint: `try again in ${minutes} minutes, as it asks for` } : {};
    return new TransientFailure(
      `${host} answered ${status}`,
      (attempts) => new StowageError("REGISTRY_UNAVAILABLE", { host, status, attempts }, hint),
      { retryAfterMs },
    );
  }
}

/** What a failed exchange or a broken body means. */
export function toFailure(error: unknown, host: string, call: Call): Error {
  if (call.signal.aborted) {
    try {
      throwIfAborted(call);
    } catch (reason) {
      return reason as Error;
    }
  }
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    if (at instanceof StowageError || at instanceof TransientFailure) return at;
  }
  const code = codeOf(error);
  const reason =
    code === undefined || messageOf(error).includes(code) ? messageOf(error) : `${messageOf(error)}, ${code}`;
  const unreachable = (hint?: string) =>
    new StowageError(
      "REGISTRY_UNREACHABLE",
      { host, reason },
      { cause: error, ...(hint === undefined ? {} : { hint }) },
    );
  if (code !== undefined && transientCodes.has(code)) {
    const told = code.endsWith("TIMEOUT") || code === "ETIMEDOUT" ? "did not answer in time" : "dropped the connection";
    return new TransientFailure(`${host} ${told}`, () => unreachable(), { cause: error });
  }
  if (code?.startsWith("HPE_") || code === "UND_ERR_HEADERS_OVERFLOW") {
    return new StowageError("REGISTRY_ANSWER_INVALID", { host, reason: "the answer is not HTTP" }, { cause: error });
  }
  const isCertificate = code !== undefined && /CERT|SELF_SIGNED|UNABLE_TO_(?:GET|VERIFY)|ALTNAME/.test(code);
  return unreachable(isCertificate ? "if you trust it all the same: --insecure" : undefined);
}

/** Code of an error, or of what caused it. */
export function codeOf(error: unknown): string | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as NodeJS.ErrnoException;
    if (typeof code === "string") return code;
  }
  return undefined;
}

/** Lets go of a body that nobody wants, in a way that keeps the connection if it is short. */
export async function discard(answer: HttpAnswer, call: Call): Promise<void> {
  // What is left of an unwanted body, and how it ends, changes nothing.
  const signal = AbortSignal.any([call.signal, AbortSignal.timeout(5000)]);
  await answer.body.dump({ limit: 16 * 1024, signal }).catch(() => undefined);
}

/**
 * A whole body of bounded size.
 * @throws StowageError `LIMIT_EXCEEDED`; TransientFailure when it breaks off
 */
export async function readBody(
  answer: HttpAnswer,
  bound: { readonly limit: string; readonly max: number; readonly timeoutMs: number; readonly what: string },
  call: Call,
): Promise<Buffer> {
  const tooLarge = (found?: number) =>
    new StowageError("LIMIT_EXCEEDED", {
      limit: bound.limit,
      max: bound.max,
      ...(found === undefined ? {} : { found }),
      where: bound.what,
    });
  const body: Readable = answer.body;
  const announced = contentLength(answer);
  const { host } = answer.url;
  if (announced !== undefined && announced > bound.max) {
    destroyBody(body);
    throw tooLarge(announced);
  }
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    body.destroy(Object.assign(new Error("the answer took too long"), { code: "ETIMEDOUT" }));
  }, bound.timeoutMs);
  try {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > bound.max) throw tooLarge();
      chunks.push(chunk);
    }
    if (isLate) throw Object.assign(new Error("the answer took too long"), { code: "ETIMEDOUT" });
    return Buffer.concat(chunks);
  } catch (error) {
    throw toFailure(error, host, call);
  } finally {
    clearTimeout(timer);
  }
}

export function destroyBody(body: Readable): void {
  body.on("error", () => undefined);
  body.destroy();
}

/** `Content-Length`, if the answer has a valid one. */
export function contentLength(answer: HttpAnswer): number | undefined {
  const value = answer.headers["content-length"];
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

function literalAddress(hostname: string): string | undefined {
  const plain = hostname.replace(/^\[|\]$/g, "");
  return isIP(plain) === 0 ? undefined : plain;
}
