import { isIP } from "node:net";
import { z } from "zod";
import { Secret } from "../../config/index.ts";
import { StowageError } from "../../errors/index.ts";
import type { Call, Progress } from "../../runtime/index.ts";
import { isLoopbackHost } from "./addresses.ts";
import { type Challenge, findChallenge } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import type { RegistrySettings } from "./settings.ts";
import { discard, type HttpAnswer, readBody, type Transport } from "./transport.ts";

const CLIENT_ID = "stowage";
const TOKEN_BYTES_MAX = 64 * 1024;
const EXPIRY_DEFAULT_S = 60;
/** A token that ends within this time is not used any more. */
const EXPIRY_MARGIN_MS = 5000;

const tokenSchema = z.object({
  token: z.string().nullish(),
  access_token: z.string().nullish(),
  expires_in: z.number().nullish(),
});

/** Answers a registry's challenges for one repository, and keeps what it got until it expires. */
export class Authorizer {
  readonly #repository: string;
  readonly #transport: Transport;
  readonly #settings: RegistrySettings;
  readonly #progress: Progress;
  readonly #credentialsOf: (host: string, call: Call) => Promise<Credentials | undefined>;
  #kept: { readonly header: Secret; readonly expiresAt: number } | undefined;

  constructor(parts: {
    readonly repository: string;
    readonly transport: Transport;
    readonly settings: RegistrySettings;
    readonly progress: Progress;
    readonly credentialsOf: (host: string, call: Call) => Promise<Credentials | undefined>;
  }) {
    this.#repository = parts.repository;
    this.#transport = parts.transport;
    this.#settings = parts.settings;
    this.#progress = parts.progress;
    this.#credentialsOf = parts.credentialsOf;
  }

  /** The `Authorization` header to send, if one is known that still holds. */
  get header(): string | undefined {
    if (this.#kept === undefined) return undefined;
    if (this.#kept.expiresAt <= this.#settings.clock.now().getTime() + EXPIRY_MARGIN_MS) return undefined;
    return this.#kept.header.reveal();
  }

  /**
   * Meets the challenge of a 401 that the registry itself sent.
   * @param registry where it came from
   * @returns the header to send
   * @throws StowageError `ACCESS_DENIED`, `REGISTRY_ANSWER_INVALID`, `REGISTRY_REDIRECT_REFUSED`; TransientFailure
   */
  async answer(refusal: HttpAnswer, registry: URL, call: Call): Promise<string> {
    const challenge = findChallenge(refusal.headers["www-authenticate"]);
    if (challenge === undefined)
      throw this.#denied(registry.host, 401, "it asks for a kind of login that is not known");
    if (challenge.scheme === "basic") {
      const credentials = await this.#credentialsOf(registry.host, call);
      if (credentials?.kind !== "basic") throw this.#denied(registry.host, 401, "it asks for a login");
      return this.#keep(basic(credentials), Number.POSITIVE_INFINITY);
    }
    return this.#fetchToken(challenge, registry, call);
  }

  async #fetchToken(challenge: Extract<Challenge, { scheme: "bearer" }>, registry: URL, call: Call): Promise<string> {
    const realm = URL.parse(challenge.realm);
    if (realm === null || realm.username !== "" || realm.password !== "") {
      throw new StowageError("REGISTRY_ANSWER_INVALID", { host: registry.host, reason: "the realm is no URL" });
    }
    this.#transport.checkTarget(realm);
    const { credentials, isWithheld } = await this.#credentialsFor(realm, registry, call);
    if (credentials?.kind === "bearer") {
      return this.#keep(`Bearer ${credentials.token.reveal()}`, Number.POSITIVE_INFINITY);
    }
    const scope = `repository:${this.#repository}:pull`;
    const answer =
      (credentials?.kind === "identity" &&
        (await this.#exchangeIdentity(realm, challenge.service, scope, credentials.token, call))) ||
      (await this.#getToken(realm, challenge.service, scope, credentials, call));
    if (answer.status !== 200) {
      const { status } = answer;
      await discard(answer, call);
      if (status === 401 || status === 403 || status === 400) {
        if (!isWithheld) throw this.#denied(realm.host, status, "the token service refused the login");
        throw accessDenied(
          realm.host,
          status,
          this.#repository,
          `the credentials for ${registry.host} were not sent to this token service, as it does not belong to the registry`,
          "if that host is right, keep credentials for it by its own name in the Docker configuration file",
        );
      }
      throw new StowageError("REGISTRY_REFUSED", {
        host: realm.host,
        status,
        reason: "the token service gave no token",
      });
    }
    const bound = { limit: "tokenBytesMax", max: TOKEN_BYTES_MAX, what: `the token of ${realm.host}` };
    const body = await readBody(answer, { ...bound, timeoutMs: this.#settings.documentTimeoutMs }, call);
    const { token, expiresInS } = parseToken(body, realm.host);
    return this.#keep(`Bearer ${token}`, this.#settings.clock.now().getTime() + expiresInS * 1000);
  }

  /** A form POST, as OAuth 2 has it; `undefined` where the service doesn't know it (404). @see distribution, spec/auth/oauth.md */
  async #exchangeIdentity(
    realm: URL,
    service: string | undefined,
    scope: string,
    token: Secret,
    call: Call,
  ): Promise<HttpAnswer | undefined> {
    const form = new URLSearchParams({ grant_type: "refresh_token", client_id: CLIENT_ID, scope });
    form.set("refresh_token", token.reveal());
    if (service !== undefined) form.set("service", service);
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const message = { method: "POST", url: realm, headers, authorization: undefined, body: form.toString() } as const;
    const answer = await this.#transport.send(message, call);
    if (answer.status !== 404 && answer.status !== 405) return answer;
    await discard(answer, call);
    return undefined;
  }

  async #getToken(
    realm: URL,
    service: string | undefined,
    scope: string,
    credentials: Credentials | undefined,
    call: Call,
  ): Promise<HttpAnswer> {
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set("service", service);
    // Some services read the first scope only, so only ours is sent.
    url.searchParams.set("scope", scope);
    url.searchParams.set("client_id", CLIENT_ID);
    const authorization =
      credentials?.kind === "basic"
        ? basic(credentials)
        : credentials?.kind === "identity"
          ? `Bearer ${credentials.token.reveal()}`
          : undefined;
    return this.#transport.send({ method: "GET", url, headers: {}, authorization }, call);
  }

  /** The registry's credentials if the realm belongs to it, else those that the user keeps for the realm's own host, if any. */
  async #credentialsFor(
    realm: URL,
    registry: URL,
    call: Call,
  ): Promise<{ credentials: Credentials | undefined; isWithheld: boolean }> {
    const own = await this.#credentialsOf(registry.host, call);
    // A registry token is for the registry itself: the realm never sees it.
    if (own === undefined || own.kind === "bearer" || isSameSite(realm, registry)) {
      return { credentials: own, isWithheld: false };
    }
    const others = await this.#credentialsOf(realm.host, call);
    if (others !== undefined && others.kind !== "bearer") return { credentials: others, isWithheld: false };
    this.#progress.tell(
      `credentials for ${registry.host} are not sent to ${realm.host}, which it names as token service`,
    );
    return { credentials: undefined, isWithheld: true };
  }

  #keep(header: string, expiresAt: number): string {
    this.#kept = { header: new Secret(header), expiresAt };
    return header;
  }

  #denied(host: string, status: number, reason: string): StowageError {
    return accessDenied(host, status, this.#repository, reason);
  }
}

export function accessDenied(
  host: string,
  status: number,
  repository: string,
  reason?: string,
  hint = "check the name; for a private image: docker login, or podman login",
): StowageError {
  return new StowageError(
    "ACCESS_DENIED",
    { host, status, repository, ...(reason === undefined ? {} : { reason }) },
    { hint },
  );
}

/**
 * Whether a token service may see the credentials of a registry: the same host, or for names one below the registry's parent domain
 * (`auth.docker.io` for `registry-1.docker.io`, `gitlab.com` for `registry.gitlab.com`). Addresses and `localhost` have no parent, and
 * their ports are different services.
 */
export function isSameSite(realm: URL, registry: URL): boolean {
  if (realm.host === registry.host) return true;
  const name = registry.hostname;
  const labels = name.split(".");
  if (isLoopbackHost(name) || isIP(name.replace(/^\[|\]$/g, "")) !== 0 || labels.length < 2) return false;
  if (realm.hostname === name) return true;
  const parent = labels.length === 2 ? labels : labels.slice(1);
  // `co.uk` and its like are nobody's own.
  const [second = "", top = ""] = parent;
  if (parent.length === 2 && second.length <= 3 && top.length === 2 && labels.length > 2) return false;
  const domain = parent.join(".");
  return realm.hostname === domain || realm.hostname.endsWith(`.${domain}`);
}

function basic(credentials: Extract<Credentials, { kind: "basic" }>): string {
  const pair = new Secret(
    Buffer.from(`${credentials.username}:${credentials.password.reveal()}`, "utf8").toString("base64"),
  );
  return `Basic ${pair.reveal()}`;
}

function parseToken(body: Buffer, host: string): { token: string; expiresInS: number } {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    // The cause would quote the token.
    throw new StowageError("REGISTRY_ANSWER_INVALID", { host, reason: "the token service's answer is not JSON" });
  }
  const parsed = tokenSchema.safeParse(value);
  const token = parsed.data?.token || parsed.data?.access_token;
  if (!token || !/^[\x21-\x7e]+$/.test(token)) {
    throw new StowageError("REGISTRY_ANSWER_INVALID", { host, reason: "the token service's answer holds no token" });
  }
  new Secret(token).reveal();
  const seconds = parsed.data?.expires_in ?? EXPIRY_DEFAULT_S;
  return { token, expiresInS: seconds > 0 ? Math.min(seconds, 86_400) : EXPIRY_DEFAULT_S };
}
