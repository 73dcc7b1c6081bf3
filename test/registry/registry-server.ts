/**
 * A registry in the test's own process that speaks the distribution protocol over real HTTP (or HTTPS): manifests, blobs, ranges, Basic
 * and token authentication, redirects of blobs, and faults on demand. A fake only in that it keeps everything in memory; the same tests of
 * the protocol run against a real registry where there is one.
 */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { type Built, sha256 } from "../images/builder.ts";
import { tagsPage } from "./tags-page.ts";

export interface RegistryAuth {
  readonly kind: "basic" | "bearer";
  readonly username?: string;
  readonly password?: string;
  /** What the token service takes in a refresh grant. */
  readonly identityToken?: string;
  /** Bearer: a token without credentials may pull. */
  readonly anonymous?: boolean;
  /** Bearer: a token service other than this server's `/token`. */
  readonly realm?: string;
  /** Bearer: seconds. */
  readonly expiresIn?: number;
  /** Bearer: the token service knows no POST. */
  readonly noPost?: boolean;
}

export interface RegistryOptions {
  readonly auth?: RegistryAuth;
  /** Where blobs are: `undefined` answers them here. */
  readonly redirectBlobs?: (digest: string) => string | undefined;
  readonly tls?: { readonly key: string; readonly cert: string };
  /** `false`: requests for a range are answered with the whole. */
  readonly ranges?: boolean;
  /** Sees each request before it is answered, and may answer it itself. */
  readonly intercept?: (
    request: RecordedRequest,
  ) => { readonly status: number; readonly headers?: Record<string, string>; readonly body?: string } | undefined;
  /** Tags of one page of a list, whatever more is asked for. */
  readonly tagsPageMax?: number;
  /** Default 127.0.0.1. */
  readonly listen?: string;
}

/** What happens instead of, or to, an answer. */
export type Fault =
  | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string | Buffer }
  /** The connection is cut before anything is sent. */
  | { readonly drop: "before-headers" }
  /** The answer is announced in whole, and cut after so many bytes of its body. */
  | { readonly dropAfterBytes: number }
  /** Nothing comes any more after so many bytes of the body. */
  | { readonly stallAfterBytes: number }
  /** Other bytes than those asked for; `chunked`: without a length. */
  | { readonly replaceBody: Buffer; readonly chunked?: boolean }
  | { readonly replaceHeaders: Readonly<Record<string, string>> };

export interface FaultRule {
  readonly method?: string;
  /** Part of the path, or a pattern. */
  readonly path: string | RegExp;
  /** One for each matching request, in order; later requests are answered well. `repeat`: the last one for ever. */
  readonly faults: readonly (Fault | "none")[];
  readonly repeat?: boolean;
}

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

export class TestRegistry implements AsyncDisposable {
  readonly requests: RecordedRequest[] = [];
  readonly blobs = new Map<string, Buffer>();
  /** Tokens that are valid. */
  readonly tokens = new Set<string>();
  readonly #manifests = new Map<string, { bytes: Buffer; mediaType: string }>();
  readonly #options: RegistryOptions;
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets = new Set<Socket>();
  #rules: { rule: FaultRule; used: number }[] = [];
  #tokenCount = 0;

  constructor(options: RegistryOptions) {
    this.#options = options;
    const handle = (request: IncomingMessage, response: ServerResponse) => {
      this.#handle(request, response).catch((error: unknown) => {
        response.destroy(error as Error);
      });
    };
    this.#server = options.tls ? createTlsServer(options.tls, handle) : createServer(handle);
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined);
    });
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, this.#options.listen ?? "127.0.0.1", resolve));
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** `127.0.0.1:PORT`, as it stands in a reference. */
  get host(): string {
    return `${this.#options.listen ?? "127.0.0.1"}:${this.port}`;
  }

  get url(): string {
    return `${this.#options.tls ? "https" : "http"}://${this.host}`;
  }

  /** Puts an image or index into a repository, by its digest and under tags. */
  push(repository: string, built: Built, ...tags: readonly string[]): void {
    for (const [digest, bytes] of built.blobs) {
      this.blobs.set(digest, bytes);
      const mediaType = mediaTypeOf(bytes);
      if (mediaType !== undefined) this.#manifests.set(`${repository}@${digest}`, { bytes, mediaType });
    }
    const { bytes, descriptor } = built;
    for (const name of [descriptor.digest, ...tags]) this.putManifest(repository, name, bytes, descriptor.mediaType);
  }

  /** Puts any bytes as a manifest under a tag or digest. */
  putManifest(repository: string, name: string, bytes: Buffer, mediaType: string): void {
    const key = name.includes(":") ? `${repository}@${name}` : `${repository}:${name}`;
    this.#manifests.set(key, { bytes, mediaType });
  }

  /** Fills a repository from an OCI layout directory. */
  pushLayout(repository: string, directory: string): void {
    const read = (digest: string) => readFileSync(join(directory, "blobs", digest.replace(":", "/")));
    type Entry = { digest: string; mediaType: string; annotations?: Record<string, string> };
    const add = (entry: Entry) => {
      const bytes = read(entry.digest);
      this.blobs.set(entry.digest, bytes);
      const parsed = /manifest|index/.test(entry.mediaType)
        ? (JSON.parse(bytes.toString()) as { manifests?: Entry[]; config?: Entry; layers?: Entry[] })
        : {};
      if (/manifest|index/.test(entry.mediaType)) this.putManifest(repository, entry.digest, bytes, entry.mediaType);
      for (const child of [
        ...(parsed.manifests ?? []),
        ...(parsed.config ? [parsed.config] : []),
        ...(parsed.layers ?? []),
      ]) {
        add(child);
      }
      const tag = entry.annotations?.["org.opencontainers.image.ref.name"];
      if (tag !== undefined) this.putManifest(repository, tag, bytes, entry.mediaType);
    };
    const index = JSON.parse(readFileSync(join(directory, "index.json"), "utf8")) as { manifests: Entry[] };
    for (const entry of index.manifests) add(entry);
  }

  /** From now on these requests go wrong. */
  fail(rule: FaultRule): void {
    this.#rules.push({ rule, used: 0 });
  }

  clearFaults(): void {
    this.#rules = [];
  }

  /** Requests whose path has this part. */
  seen(part: string | RegExp, method?: string): readonly RecordedRequest[] {
    return this.requests.filter(
      (request) =>
        (method === undefined || request.method === method) &&
        (typeof part === "string" ? request.path.includes(part) : part.test(request.path)),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const recorded = {
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    };
    this.requests.push(recorded);
    const own = this.#options.intercept?.(recorded);
    if (own !== undefined) {
      this.#send(response, recorded, {
        status: own.status,
        headers: own.headers ?? {},
        body: Buffer.from(own.body ?? ""),
      });
      return;
    }
    const fault = this.#faultFor(recorded);
    if (fault !== undefined && "drop" in fault) {
      request.socket.destroy();
      return;
    }
    if (fault !== undefined && "status" in fault) {
      const body = Buffer.from(fault.body ?? "");
      this.#send(response, recorded, { status: fault.status, headers: { ...fault.headers }, body });
      return;
    }
    const answer = this.#answer(recorded);
    if (fault === undefined) this.#send(response, recorded, answer);
    else if ("replaceHeaders" in fault) {
      this.#send(response, recorded, { ...answer, headers: { ...answer.headers, ...fault.replaceHeaders } });
    } else if ("replaceBody" in fault) {
      if (fault.chunked) {
        response.writeHead(answer.status, answer.headers);
        response.end(fault.replaceBody);
      } else this.#send(response, recorded, { ...answer, body: fault.replaceBody });
    } else {
      const bytes = "dropAfterBytes" in fault ? fault.dropAfterBytes : fault.stallAfterBytes;
      response.writeHead(answer.status, { ...answer.headers, "content-length": String(answer.body.length) });
      response.flushHeaders();
      const part = answer.body.subarray(0, bytes);
      const then = () => {
        if ("dropAfterBytes" in fault) request.socket.destroy();
      };
      if (part.length === 0) setImmediate(then);
      else response.write(part, () => setImmediate(then));
    }
  }

  #send(response: ServerResponse, request: RecordedRequest, answer: Answer): void {
    response.writeHead(answer.status, { "content-length": String(answer.body.length), ...answer.headers });
    if (request.method === "HEAD") response.end();
    else response.end(answer.body);
  }

  #faultFor(request: RecordedRequest): Fault | undefined {
    for (const state of this.#rules) {
      const { method, path, faults, repeat } = state.rule;
      if (method !== undefined && method !== request.method) continue;
      if (typeof path === "string" ? !request.path.includes(path) : !path.test(request.path)) continue;
      const fault = faults[state.used] ?? (repeat ? faults.at(-1) : undefined);
      state.used++;
      if (fault !== undefined) return fault === "none" ? undefined : fault;
    }
    return undefined;
  }

  #answer(request: RecordedRequest): Answer {
    const url = new URL(request.path, "http://registry");
    if (url.pathname === "/token") return this.#token(request, url);
    if (!url.pathname.startsWith("/v2/")) return failure(404, "NOT_FOUND");
    const match = /^\/v2\/(.+)\/(manifests|blobs|tags)\/([^/]+)$/.exec(url.pathname);
    const repository = match?.[1] ?? "";
    const challenge = this.#challenge(request, repository);
    if (challenge !== undefined) return challenge;
    if (url.pathname === "/v2/") return { status: 200, headers: {}, body: Buffer.from("{}") };
    if (match === null) return failure(404, "NOT_FOUND");
    const name = decodeURIComponent(match[3] ?? "");
    if (match[2] === "tags") return this.#tags(repository, url);
    return match[2] === "manifests" ? this.#manifest(request, repository, name) : this.#blob(request, name);
  }

  #manifest(request: RecordedRequest, repository: string, name: string): Answer {
    const found = this.#manifests.get(name.includes(":") ? `${repository}@${name}` : `${repository}:${name}`);
    if (found === undefined) return failure(404, "MANIFEST_UNKNOWN");
    // Registries answer 404 to those who don't accept what they have.
    const accept = request.headers.accept ?? "*/*";
    if (found.mediaType.includes("vnd.") && !accept.includes("*/*") && !accept.includes(found.mediaType)) {
      return failure(404, "MANIFEST_UNKNOWN");
    }
    const headers = { "content-type": found.mediaType, "docker-content-digest": sha256(found.bytes) };
    return { status: 200, headers, body: found.bytes };
  }

  #tags(repository: string, url: URL): Answer {
    const prefix = `${repository}:`;
    const keys = [...this.#manifests.keys()];
    if (!keys.some((key) => key.startsWith(prefix) || key.startsWith(`${repository}@`))) {
      return failure(404, "NAME_UNKNOWN");
    }
    const tags = keys.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
    return { status: 200, ...tagsPage(repository, tags, url.searchParams, this.#options.tagsPageMax) };
  }

  #blob(request: RecordedRequest, digest: string): Answer {
    const body = this.blobs.get(digest);
    if (body === undefined) return failure(404, "BLOB_UNKNOWN");
    const location = this.#options.redirectBlobs?.(digest);
    if (location !== undefined) return { status: 307, headers: { location }, body: Buffer.alloc(0) };
    const headers = {
      "content-type": "application/octet-stream",
      "docker-content-digest": digest,
      "accept-ranges": "bytes",
      etag: `"${sha256(body)}"`,
    };
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const condition = request.headers["if-range"] ?? headers.etag;
    if (range === null || condition !== headers.etag || this.#options.ranges === false)
      return { status: 200, headers, body };
    const start = Number(range[1]);
    const end = range[2] ? Math.min(Number(range[2]), body.length - 1) : body.length - 1;
    if (start >= body.length || start > end) {
      return { status: 416, headers: { "content-range": `bytes */${body.length}` }, body: Buffer.alloc(0) };
    }
    return {
      status: 206,
      headers: { ...headers, "content-range": `bytes ${start}-${end}/${body.length}` },
      body: body.subarray(start, end + 1),
    };
  }

  #challenge(request: RecordedRequest, repository: string): Answer | undefined {
    const { auth } = this.#options;
    if (auth === undefined) return undefined;
    const given = request.headers.authorization ?? "";
    if (auth.kind === "basic") {
      if (given === basicHeader(auth)) return undefined;
      return failure(401, "UNAUTHORIZED", { "www-authenticate": 'Basic realm="test"' });
    }
    if (given.startsWith("Bearer ") && this.tokens.has(given.slice("Bearer ".length))) return undefined;
    const realm = auth.realm ?? `${this.url}/token`;
    const parameters = `realm="${realm}",service="test-service",scope="repository:${repository}:pull"`;
    return failure(401, "UNAUTHORIZED", { "www-authenticate": `Bearer ${parameters}` });
  }

  #token(request: RecordedRequest, url: URL): Answer {
    const { auth } = this.#options;
    if (auth === undefined) return failure(404, "NOT_FOUND");
    let isAllowed: boolean;
    if (request.method === "POST") {
      if (auth.noPost) return failure(404, "NOT_FOUND");
      const form = new URLSearchParams(request.body);
      isAllowed =
        auth.identityToken !== undefined &&
        form.get("grant_type") === "refresh_token" &&
        form.get("refresh_token") === auth.identityToken &&
        form.get("service") === "test-service" &&
        /^repository:.+:pull$/.test(form.get("scope") ?? "");
    } else {
      const given = request.headers.authorization;
      isAllowed =
        given === undefined
          ? auth.anonymous === true
          : given === basicHeader(auth) ||
            (auth.identityToken !== undefined && given === `Bearer ${auth.identityToken}`);
      if (url.searchParams.get("service") !== "test-service") return failure(400, "NO_SERVICE");
    }
    if (!isAllowed) return failure(401, "UNAUTHORIZED");
    this.#tokenCount++;
    const token = `token-${this.#tokenCount}-of-the-test-registry`;
    this.tokens.add(token);
    const body = JSON.stringify({ token, ...(auth.expiresIn === undefined ? {} : { expires_in: auth.expiresIn }) });
    return { status: 200, headers: { "content-type": "application/json" }, body: Buffer.from(body) };
  }
}

/** Starts a registry on a free port of the loopback interface. */
export function startRegistry(options: RegistryOptions = {}): Promise<TestRegistry> {
  return new TestRegistry(options).listen();
}

function basicHeader(auth: RegistryAuth): string {
  return `Basic ${Buffer.from(`${auth.username ?? ""}:${auth.password ?? ""}`).toString("base64")}`;
}

function failure(status: number, code: string, headers: Record<string, string> = {}): Answer {
  const body = Buffer.from(JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] }));
  return { status, headers: { "content-type": "application/json", ...headers }, body };
}

function mediaTypeOf(bytes: Buffer): string | undefined {
  if (bytes[0] !== 0x7b) return undefined;
  try {
    const { schemaVersion, mediaType } = JSON.parse(bytes.toString()) as { schemaVersion?: number; mediaType?: string };
    return schemaVersion === 2 ? mediaType : undefined;
  } catch {
    return undefined;
  }
}
