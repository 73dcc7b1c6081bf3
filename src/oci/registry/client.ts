import { StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { type Reference, registryName } from "../reference.ts";
import type { SourceOptions } from "../source-options.ts";
import { isLoopbackHost } from "./addresses.ts";
import { Authorizer, accessDenied } from "./authorizer.ts";
import { type Credentials, findCredentials } from "./credentials.ts";
import type { RegistrySettings } from "./settings.ts";
import { codeOf, discard, type HttpAnswer, Transport } from "./transport.ts";

/** Requests to one repository, with whatever login the registry asks for. No ping: the first request's challenge tells all. */
export class RegistryClient implements AsyncDisposable {
  readonly #repository: string;
  readonly #transport: Transport;
  readonly #authorizer: Authorizer;
  /** The first that works is kept. */
  #bases: readonly URL[];

  constructor(reference: Reference, options: SourceOptions, settings: RegistrySettings) {
    const { host, repository } = registryName(reference);
    const https = new URL(`https://${host}`);
    const http = new URL(`http://${host}`);
    if (isLoopbackHost(https.hostname)) this.#bases = [http, https];
    else this.#bases = options.insecure ? [https, http] : [https];
    this.#repository = repository;
    this.#transport = new Transport(https, options, settings);
    // URLs drop default ports, which keys of credentials may have.
    const own = new Set([https.host, http.host]);
    const known = new Map<string, Promise<Credentials | undefined>>();
    this.#authorizer = new Authorizer({
      repository,
      settings,
      transport: this.#transport,
      progress: options.progress,
      // Asked for once only: a helper may prompt.
      credentialsOf: (name, call) => {
        const found =
          known.get(name) ??
          findCredentials(own.has(name) ? host : name, repository, options.credentials, options.progress, call);
        known.set(name, found);
        found.catch(() => known.delete(name));
        return found;
      },
    });
  }

  get(path: string, options: { readonly accept?: string }, call: Call): Promise<HttpAnswer> {
    return this.#send("GET", path, options.accept === undefined ? {} : { accept: options.accept }, call);
  }

  /** Redirects are not followed: they are the answer. */
  head(path: string, call: Call): Promise<HttpAnswer> {
    return this.#send("HEAD", path, {}, call);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#transport[Symbol.asyncDispose]();
  }

  async #send(
    method: "GET" | "HEAD",
    path: string,
    headers: Readonly<Record<string, string>>,
    call: Call,
  ): Promise<HttpAnswer> {
    const follow = method === "GET";
    let authorization = this.#authorizer.header;
    for (let isSecond = false; ; isSecond = true) {
      const answer = await this.#sendToBase({ method, headers, authorization, follow }, path, call);
      if (answer.status !== 401) return answer;
      await discard(answer, call);
      const base = this.#bases[0] as URL;
      // What stands behind a redirect gets no credentials, whatever it asks.
      if (answer.url.host !== base.host) throw accessDenied(answer.url.host, 401, this.#repository);
      if (isSecond) {
        throw accessDenied(base.host, 401, this.#repository, "it refuses its own token, or the login is not enough");
      }
      authorization = await this.#authorizer.answer(answer, base, call);
    }
  }

  /** Sends to the base that works, and finds out which one that is. */
  async #sendToBase(
    message: Omit<Parameters<Transport["send"]>[0], "url">,
    path: string,
    call: Call,
  ): Promise<HttpAnswer> {
    for (;;) {
      const [base, other] = this.#bases as [URL, URL | undefined];
      try {
        const answer = await this.#transport.send({ ...message, url: new URL(path, base) }, call);
        // A TLS server answers plain HTTP with this.
        const isWrong = other !== undefined && base.protocol === "http:" && answer.status === 400;
        if (!isWrong) {
          this.#bases = [base];
          return answer;
        }
        await discard(answer, call);
        this.#bases = [other];
      } catch (error) {
        if (other === undefined || !speaksOtherProtocol(error, base)) throw error;
        this.#bases = [other];
      }
    }
  }
}

/** Whether a failure looks like TLS spoken to plain HTTP, or the reverse, or like a port where nobody is. */
function speaksOtherProtocol(error: unknown, base: URL): boolean {
  const code = error instanceof StowageError ? codeOf(error.cause) : codeOf(error);
  if (code === undefined) return false;
  if (base.protocol === "https:") return code === "EPROTO" || code.startsWith("ERR_SSL_") || code === "ECONNREFUSED";
  return code.startsWith("HPE_");
}
