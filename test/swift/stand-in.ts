/**
 * A STAND-IN for Swift and Keystone, not the real thing: it speaks so much of both protocols as tests of logins, renewals and faults need, over
 * real HTTP, and keeps all in memory. What a Swift really does is tested against a real one (`STOWAGE_TEST_SWIFT`); where the two were compared,
 * this one does the same: `If-None-Match` counts when a PUT begins, and of racing requests the one that began last stays.
 */
import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";

export interface Fault {
  /** Part of `METHOD /path?query`. */
  readonly at: string;
  /** `after`: what was asked for is done first. */
  readonly when?: "before" | "after";
  /** How many matching requests are let through first. */
  readonly skip?: number;
  /** An answer, a cut connection, or a body that is cut or changed. */
  readonly fault:
    | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
    | "drop"
    | "cutBody"
    | "damage";
  /** How many matching requests; 1 where it is not said. */
  readonly times?: number;
}

interface Stored {
  readonly began: number;
  /** `undefined`: deleted. */
  readonly bytes: Buffer | undefined;
  readonly etag: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly segments: readonly string[] | undefined;
}

export interface StandInOptions {
  readonly tls?: { readonly key: string; readonly cert: string };
  readonly tokenSeconds?: number;
  readonly information?: object | undefined;
  readonly pageMax?: number;
}

export const account = { user: "test:tester", key: "k3y-of-tests", project: "research", domain: "north" } as const;

export class StandIn implements AsyncDisposable {
  readonly requests: string[] = [];
  readonly containers = new Map<string, Map<string, Stored>>();
  readonly logins: unknown[] = [];
  /** How many requests came with a token that is not valid. */
  refusals = 0;
  readonly faults: { fault: Fault; left: number; skip: number }[] = [];
  readonly #tokens = new Set<string>();
  readonly #options: StandInOptions;
  readonly #server: ReturnType<typeof createServer>;
  #clock = 0;

  private constructor(options: StandInOptions) {
    this.#options = options;
    const listener = (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response).catch(() => response.destroy());
    };
    this.#server = options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener);
  }

  static async start(options: StandInOptions = {}): Promise<StandIn> {
    const standIn = new StandIn(options);
    standIn.#server.listen(0, "127.0.0.1");
    await new Promise((resolve) => standIn.#server.once("listening", resolve));
    return standIn;
  }

  get origin(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `${this.#options.tls === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  }

  fail(fault: Fault): void {
    this.faults.push({ fault, left: fault.times ?? 1, skip: fault.skip ?? 0 });
  }

  /** From now on every token given so far is refused. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  get tokens(): readonly string[] {
    return [...this.#tokens];
  }

  names(container: string): string[] {
    const stored = [...(this.containers.get(container) ?? [])].filter(([, { bytes }]) => bytes !== undefined);
    return stored.map(([name]) => name).sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const line = `${request.method} ${decodeURIComponent(request.url ?? "")}`;
    this.requests.push(line);
    response.sendDate = false;
    const met = this.faults.find(({ fault, left }) => left > 0 && line.includes(fault.at));
    let fault: Fault | undefined;
    if (met && met.skip-- <= 0) {
      met.left--;
      fault = met.fault;
    }
    const act = fault?.fault;
    if (act !== undefined && fault?.when !== "after" && act !== "cutBody" && act !== "damage") {
      if (act === "drop") request.socket.destroy();
      else {
        response.writeHead(act.status, act.headers).end(act.body ?? "");
      }
      return;
    }
    const url = new URL(request.url ?? "", this.origin);
    const answer = await this.#serve(request, url, act === "damage");
    if (fault?.when === "after" && act === "drop") request.socket.destroy();
    else if (fault?.when === "after" && typeof act === "object")
      response.writeHead(act.status, act.headers).end(act.body);
    else if (act === "cutBody") {
      response.writeHead(answer.status, { "content-length": answer.body.length, ...answer.headers });
      response.write(answer.body.subarray(0, answer.body.length / 2), () => request.socket.destroy());
    } else {
      const isHead = request.method === "HEAD";
      response.writeHead(answer.status, { "content-length": isHead ? 0 : answer.body.length, ...answer.headers });
      response.end(isHead ? undefined : answer.body);
    }
  }

  async #serve(request: IncomingMessage, url: URL, isDamaged: boolean): Promise<Answer> {
    if (url.pathname === "/info") {
      if (!("information" in this.#options)) return json(information);
      return this.#options.information === undefined ? status(404) : json(this.#options.information);
    }
    if (url.pathname === "/auth/v1.0") return this.#firstLogin(request);
    if (url.pathname === "/v2.0/tokens") return this.#secondLogin(JSON.parse((await read(request)).toString()));
    if (url.pathname === "/v3/auth/tokens") return this.#thirdLogin(JSON.parse((await read(request)).toString()));
    const [, version, owner, container, ...rest] = url.pathname.split("/").map(decodeURIComponent);
    if (version !== "v1" || owner !== "AUTH_test" || container === undefined) return status(404);
    if (!this.#tokens.has(String(request.headers["x-auth-token"]))) {
      this.refusals++;
      return status(401);
    }
    const name = rest.join("/");
    if (name === "") return this.#container(request, container, url.searchParams);
    const objects = this.containers.get(container);
    if (objects === undefined) return status(404);
    return await this.#object(request, objects, name, url.searchParams, isDamaged);
  }

  #container(request: IncomingMessage, container: string, query: URLSearchParams): Answer {
    if (request.method === "PUT") {
      const isNew = !this.containers.has(container);
      if (isNew) this.containers.set(container, new Map());
      return status(isNew ? 201 : 202);
    }
    const objects = this.containers.get(container);
    if (objects === undefined) return status(404);
    if (request.method === "HEAD") return status(204);
    const prefix = query.get("prefix") ?? "";
    const marker = Buffer.from(query.get("marker") ?? "");
    const limit = Math.min(Number(query.get("limit") ?? 10_000), this.#options.pageMax ?? 10_000);
    const entries: object[] = [];
    const directories = new Set<string>();
    for (const name of this.names(container)) {
      if (entries.length === limit) break;
      if (!name.startsWith(prefix)) continue;
      const slash = query.get("delimiter") === "/" ? name.indexOf("/", prefix.length) : -1;
      const subdir = slash < 0 ? undefined : name.slice(0, slash + 1);
      if (Buffer.compare(Buffer.from(subdir ?? name), marker) <= 0) continue;
      if (subdir === undefined) entries.push({ name, bytes: this.#whole(objects, name).length });
      else if (!directories.has(subdir)) {
        directories.add(subdir);
        entries.push({ subdir });
      }
    }
    return json(entries);
  }

  async #object(
    request: IncomingMessage,
    objects: Map<string, Stored>,
    name: string,
    query: URLSearchParams,
    isDamaged: boolean,
  ): Promise<Answer> {
    const began = ++this.#clock;
    const found = objects.get(name);
    const isThere = found?.bytes !== undefined;
    const store = (stored: Omit<Stored, "began">) => {
      if ((objects.get(name)?.began ?? 0) < began) objects.set(name, { began, ...stored });
    };
    const gone = { bytes: undefined, etag: "", headers: {}, segments: undefined };
    switch (request.method) {
      case "PUT": {
        if (request.headers["if-none-match"] === "*" && isThere) return status(412);
        let bytes = await read(request);
        let segments: string[] | undefined;
        let etag = md5(bytes);
        if (query.get("multipart-manifest") === "put") {
          const manifest = JSON.parse(bytes.toString()) as { path: string; etag: string; size_bytes: number }[];
          segments = manifest.map(({ path }) => path.slice(path.indexOf("/", 1) + 1));
          const isRight = manifest.every(({ etag: wanted }, at) => objects.get(segments?.[at] ?? "")?.etag === wanted);
          if (!isRight) return status(400);
          etag = md5(manifest.map((segment) => segment.etag).join(""));
          bytes = Buffer.alloc(0);
        }
        if (isDamaged) {
          bytes = Buffer.concat([bytes, Buffer.from("!")]);
          etag = md5(bytes);
        }
        if (request.headers.etag !== undefined && request.headers.etag !== etag) return status(422);
        const kept = Object.entries(request.headers).filter(([header]) => header.startsWith("x-object-meta-"));
        store({ bytes, etag, segments, headers: Object.fromEntries(kept) as Record<string, string> });
        return { status: 201, headers: { etag: segments === undefined ? etag : `"${etag}"` }, body: nothing };
      }
      case "DELETE": {
        const isBulk = query.get("multipart-manifest") === "delete";
        if (isBulk && isThere && found.segments === undefined) return json({ "Response Status": "400 Bad Request" });
        for (const segment of (isBulk && found?.segments) || []) objects.set(segment, { began, ...gone });
        store(gone);
        return isBulk ? json({ "Response Status": "200 OK" }) : status(isThere ? 204 : 404);
      }
      default: {
        if (!isThere) return status(404);
        const { segments } = found;
        const isLost = segments?.some((segment) => objects.get(segment)?.bytes === undefined) ?? false;
        if (isLost && request.method === "GET") return status(409);
        const headers = { ...found.headers, ...(segments === undefined ? {} : { "x-static-large-object": "True" }) };
        const whole = this.#whole(objects, name);
        const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        if (first === undefined) return { status: 200, headers, body: whole };
        if (Number(first) >= whole.length) return status(416);
        const end = Math.min(Number(last) + 1, whole.length);
        const range = `bytes ${first}-${end - 1}/${whole.length}`;
        return {
          status: 206,
          headers: { ...headers, "content-range": range },
          body: whole.subarray(Number(first), end),
        };
      }
    }
  }

  #whole(objects: Map<string, Stored>, name: string): Buffer {
    const { bytes = nothing, segments } = objects.get(name) ?? {};
    return segments === undefined
      ? bytes
      : Buffer.concat(segments.map((segment) => objects.get(segment)?.bytes ?? nothing));
  }

  #newToken(): string {
    const token = `AUTH_tk${randomBytes(16).toString("hex")}`;
    this.#tokens.add(token);
    return token;
  }

  get #lifetime(): { issued: string; expires: string } {
    const issued = Date.now();
    const expires = issued + (this.#options.tokenSeconds ?? 86_400) * 1000;
    return { issued: new Date(issued).toISOString(), expires: new Date(expires).toISOString() };
  }

  #firstLogin({ headers }: IncomingMessage): Answer {
    this.logins.push({ user: headers["x-auth-user"] });
    if (headers["x-auth-user"] !== account.user || headers["x-auth-key"] !== account.key) return status(401);
    return {
      status: 200,
      headers: {
        "x-auth-token": this.#newToken(),
        "x-storage-url": `${this.origin}/v1/AUTH_test`,
        "x-auth-token-expires": String(this.#options.tokenSeconds ?? 86_400),
      },
      body: nothing,
    };
  }

  #secondLogin({ auth }: { auth: SecondLogin }): Answer {
    const { username, password } = auth.passwordCredentials;
    this.logins.push({ username, tenantName: auth.tenantName, tenantId: auth.tenantId });
    if (username !== "tester" || password !== account.key || auth.tenantName !== account.project) return status(401);
    const { issued, expires } = this.#lifetime;
    const elsewhere = "http://127.0.0.1:9/v1/AUTH_test";
    const right = `${this.origin}/v1/AUTH_test`;
    return json({
      access: {
        token: { id: this.#newToken(), issued_at: issued, expires },
        serviceCatalog: [
          { type: "compute", endpoints: [{ region: "two", publicURL: elsewhere }] },
          {
            type: "object-store",
            endpoints: [
              { region: "one", publicURL: elsewhere, internalURL: elsewhere },
              { region: "two", publicURL: elsewhere, internalURL: right, adminURL: elsewhere },
            ],
          },
        ],
      },
    });
  }

  #thirdLogin({ auth }: { auth: ThirdLogin }): Answer {
    const { user } = auth.identity.password;
    this.logins.push({ user: { ...user, password: undefined }, scope: auth.scope });
    const isUser = user.id === "u-1" || (user.name === "tester" && user.domain?.name === account.domain);
    const { project } = auth.scope ?? {};
    const isProject =
      project?.id === "p-1" || (project?.name === account.project && project.domain?.name === account.domain);
    if (!isUser || !isProject || user.password !== account.key) return status(401);
    const { issued, expires } = this.#lifetime;
    const elsewhere = "http://127.0.0.1:9/v1/AUTH_test";
    const right = `${this.origin}/v1/AUTH_test`;
    const answer = json({
      token: {
        issued_at: issued,
        expires_at: expires,
        catalog: [
          { type: "identity", endpoints: [{ interface: "public", region: "two", url: elsewhere }] },
          {
            type: "object-store",
            endpoints: [
              { interface: "public", region: "one", region_id: "one", url: elsewhere },
              { interface: "internal", region: "two", region_id: "two", url: elsewhere },
              { interface: "public", region: "two", region_id: "two", url: right },
            ],
          },
        ],
      },
    });
    return { ...answer, status: 201, headers: { ...answer.headers, "x-subject-token": this.#newToken() } };
  }
}

interface SecondLogin {
  readonly passwordCredentials: { readonly username: string; readonly password: string };
  readonly tenantName?: string;
  readonly tenantId?: string;
}

interface Scoped {
  readonly id?: string;
  readonly name?: string;
  readonly domain?: { readonly id?: string; readonly name?: string };
}

interface ThirdLogin {
  readonly identity: { readonly password: { readonly user: Scoped & { readonly password: string } } };
  readonly scope?: { readonly project: Scoped };
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const nothing = Buffer.alloc(0);
const information = {
  swift: { max_file_size: 5 * 1024 ** 3, container_listing_limit: 10_000 },
  slo: { max_manifest_segments: 1000 },
};

function status(code: number): Answer {
  return { status: code, headers: {}, body: nothing };
}

function json(value: unknown): Answer {
  return { status: 200, headers: { "content-type": "application/json" }, body: Buffer.from(JSON.stringify(value)) };
}

function md5(bytes: Buffer | string): string {
  return createHash("md5").update(bytes).digest("hex");
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
