import type { Secret } from "../../../config/index.ts";
import { StowageError } from "../../../errors/index.ts";
import { type Call, unlessAborted } from "../../../runtime/index.ts";
import type { Login } from "./config.ts";
import { type Attempt, driverName, statusFailure } from "./failure.ts";
import { type EndpointChoice, logIn, type Session, storageUrl } from "./login.ts";
import { type Answer, type Body, discard, type HttpRequest, type Transport } from "./transport.ts";

export interface ClientSettings {
  readonly container: string;
  /** How to log in again; without it only the token below is there. */
  readonly login: Login | undefined;
  readonly choice: EndpointChoice;
  /** A token to begin with. */
  readonly token: Secret | undefined;
}

export interface SwiftRequest {
  readonly method: HttpRequest["method"];
  /** An object's name; without one the container itself. */
  readonly name?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Called again when the token was refused. */
  readonly body?: () => Body | Promise<Body>;
  readonly answerTimeoutMs?: number;
  /** Statuses that the caller understands; others are failures. */
  readonly accepts: readonly number[];
}

const loginTimeoutMs = 120_000;
/** A token is renewed so long before its end, or at half of its life if that is later. */
const renewBeforeMs = 5 * 60_000;

interface Opened {
  readonly session: Session;
  /** By `performance.now()`. */
  readonly renewAt: number;
}

/** Requests to one container, with a token that is renewed when it ends or is refused. */
export class SwiftClient implements AsyncDisposable {
  readonly container: string;
  readonly #settings: ClientSettings;
  readonly #transport: Transport;
  readonly #closing = new AbortController();
  #opened: Opened | undefined;
  #opening: Promise<Opened> | undefined;

  constructor(settings: ClientSettings, transport: Transport) {
    this.#settings = settings;
    this.#transport = transport;
    this.container = settings.container;
    const { token, choice } = settings;
    if (token !== undefined) {
      const attempt: Attempt = { operation: "open", resource: "os_storage_url", container: this.container };
      const session = { storageUrl: storageUrl(choice.os_storage_url, attempt), token, lifetimeMs: undefined };
      this.#opened = { session, renewAt: Number.POSITIVE_INFINITY };
    }
  }

  /** The answer to a request about the container or one of its objects. */
  async request(request: SwiftRequest, attempt: Attempt, call: Call): Promise<Answer> {
    for (let isRenewed = false; ; isRenewed = true) {
      const opened = await this.#open(call);
      const { session } = opened;
      const { method, headers, body, answerTimeoutMs } = request;
      const answer = await this.#transport.send(
        {
          method,
          origin: session.storageUrl.origin,
          path: this.#pathOf(session.storageUrl, request),
          headers: { ...headers, "x-auth-token": session.token.reveal() },
          ...(body === undefined ? {} : { body: await body() }),
          ...(answerTimeoutMs === undefined ? {} : { answerTimeoutMs }),
        },
        attempt,
        call,
      );
      if (request.accepts.includes(answer.statusCode)) return answer;
      await discard(answer, call);
      const mayRenew = answer.statusCode === 401 && !isRenewed && this.#settings.login !== undefined;
      if (!mayRenew) throw statusFailure(answer, method, attempt);
      // Unless another request has renewed it meanwhile.
      if (this.#opened === opened) this.#opened = undefined;
    }
  }

  /** What the server says of itself. It is asked without a token, at the root of its host. */
  async information(attempt: Attempt, call: Call): Promise<Answer> {
    const { session } = await this.#open(call);
    return await this.#transport.send(
      { method: "GET", origin: session.storageUrl.origin, path: "/info", headers: {} },
      attempt,
      call,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#transport[Symbol.asyncDispose]();
  }

  async #open(call: Call): Promise<Opened> {
    if (this.#opened !== undefined && performance.now() < this.#opened.renewAt) return this.#opened;
    this.#opening ??= this.#logIn(call).finally(() => {
      this.#opening = undefined;
    });
    return await unlessAborted(this.#opening, call);
  }

  /** One login serves all who wait for it, so it does not end with the call of the first. */
  async #logIn({ log }: Call): Promise<Opened> {
    const { login, choice, container } = this.#settings;
    if (login === undefined) throw new Error("a token that is given is never renewed");
    const late = new AbortController();
    const details = { driver: driverName, operation: "open", silentMs: loginTimeoutMs };
    const timer = setTimeout(() => late.abort(new StowageError("BACKEND_STALLED", details)), loginTimeoutMs);
    const signal = AbortSignal.any([this.#closing.signal, late.signal]);
    try {
      const session = await logIn(login, choice, this.#transport, container, { signal, log });
      const { lifetimeMs } = session;
      const lasts =
        lifetimeMs === undefined ? Number.POSITIVE_INFINITY : Math.max(lifetimeMs - renewBeforeMs, lifetimeMs / 2);
      this.#opened = { session, renewAt: performance.now() + lasts };
      return this.#opened;
    } finally {
      clearTimeout(timer);
    }
  }

  #pathOf(account: URL, { name, query }: SwiftRequest): string {
    const parts = [this.container, ...(name === undefined ? [] : name.split("/"))].map(encodeURIComponent);
    const search = query === undefined ? "" : `?${new URLSearchParams(query)}`;
    return `${account.pathname.replace(/\/+$/, "")}/${parts.join("/")}${search}`;
  }
}
