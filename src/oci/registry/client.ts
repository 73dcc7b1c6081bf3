import { isCode, StowageError } from "../../errors/index.ts";
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

  get(path: string, headers: Readonly<Record<string, string>>, call: Call): Promise<HttpAnswer> {
    return this.#send("GET", path, headers, call);
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

  /** Sends to the base that works, and finds out which one that is: what speaks TLS is not always what should. */
  async #sendToBase(
    message: Omit<Parameters<Transport["send"]>[0], "url">,
    path: string,
    call: Call,
  ): Promise<HttpAnswer> {
    const [base, other] = this.#bases as [URL, URL | undefined];
    const sendTo = (to: URL) => this.#transport.send({ ...message, url: new URL(path, to) }, call);
    if (other === undefined) {
      return await sendTo(base).catch((error: unknown) => {
        throw explainPlain(error, base) ?? error;
      });
    }
    let first: HttpAnswer | undefined;
    let failure: unknown;
    try {
      first = await sendTo(base);
      // A TLS server answers plain HTTP with this.
      if (base.protocol === "https:" || first.status !== 400) {
        this.#bases = [base];
        return first;
      }
      await discard(first, call);
    } catch (error) {
      if (!mayBeOtherProtocol(error)) throw error;
      failure = error;
    }
    try {
      const second = await sendTo(other);
      this.#bases = [other];
      return second;
    } catch (error) {
      if (mayBeOtherProtocol(error)) throw failure ?? error;
      this.#bases = [other];
      throw error;
    }
  }
}

/** What a failure says of a registry that was asked over HTTPS only and answered with something that is no TLS. */
function explainPlain(error: unknown, base: URL): StowageError | undefined {
  if (base.protocol !== "https:" || !isCode(error, "REGISTRY_UNREACHABLE") || error.details.host !== base.host) return;
  if (codeOf(error.cause) !== "ERR_SSL_WRONG_VERSION_NUMBER") return;
  return new StowageError(
    "REGISTRY_UNREACHABLE",
    { host: base.host, reason: "it does not speak TLS, and seems to speak plain HTTP" },
    { cause: error.cause, hint: "if you trust the network between here and there: --insecure" },
  );
}

/** Whether a failure looks like TLS spoken to plain HTTP, or the reverse, or like a port where nobody is. */
function mayBeOtherProtocol(error: unknown): boolean {
  const code = codeOf(error instanceof StowageError ? error.cause : error) ?? "";
  return /^(?:EPROTO|ERR_SSL_.*|HPE_.*|ECONNREFUSED|ECONNRESET|UND_ERR_SOCKET)$/.test(code);
}
