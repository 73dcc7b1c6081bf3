import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { buffer } from "node:stream/consumers";

/** A request that reached the server. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** What goes wrong with one request. */
export type Fault =
  /** Nothing happens, and this is answered. */
  | { readonly instead: Reply }
  /** It takes effect, and this is answered. */
  | { readonly after: Reply }
  /** The connection is cut, before the effect or after it. */
  | { readonly cut: "before" | "after" }
  /** The right answer, its body cut short after so many bytes. */
  | { readonly truncateAt: number }
  /** The right answer, its body changed. */
  | { readonly change: (body: Buffer, headers: Record<string, string>) => Buffer }
  /** No answer at all. */
  | { readonly silence: true };

export interface ModelServer extends AsyncDisposable {
  readonly url: string;
  readonly objects: Map<string, Buffer>;
  readonly uploads: Map<string, { readonly key: string; readonly parts: Map<number, Buffer> }>;
  /** All requests so far, as "METHOD /path?query". */
  readonly log: Asked[];
  readonly openSockets: () => number;
  /** Asked for each request. */
  fault: (asked: Asked) => Fault | undefined;
}

/**
 * The part of S3 that the driver speaks, as AWS documents it, in memory: for faults that no real server can be made to have, and for the conditional
 * writes and checksums that the stand-in from npm lacks. It checks no signatures.
 */
export async function startModelServer(options: { tls?: { key: string; cert: string } } = {}): Promise<ModelServer> {
  const objects: ModelServer["objects"] = new Map();
  const uploads: ModelServer["uploads"] = new Map();
  const log: Asked[] = [];
  const sockets = new Set<unknown>();
  const server = options.tls === undefined ? createServer() : createTlsServer(options.tls);
  // No connection is cut but by a fault.
  server.keepAliveTimeout = 0;
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    answer(request, response).catch(() => response.destroy());
  });
  const model: ModelServer = {
    url: "",
    objects,
    uploads,
    log,
    openSockets: () => sockets.size,
    fault: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://server");
    const asked: Asked = {
      method: request.method ?? "",
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers: request.headers as Record<string, string>,
      body: await buffer(request),
    };
    log.push(asked);
    const fault = model.fault(asked);
    if (fault === undefined) return send(response, asked, obey(asked, objects, uploads));
    if ("silence" in fault) return;
    if ("cut" in fault && fault.cut === "before") return void response.destroy();
    if ("instead" in fault) return send(response, asked, fault.instead);
    const reply = obey(asked, objects, uploads);
    if ("cut" in fault) return void response.destroy();
    if ("after" in fault) return send(response, asked, fault.after);
    if ("change" in fault) {
      const headers = { ...reply.headers };
      return send(response, asked, { ...reply, body: fault.change(Buffer.from(reply.body ?? ""), headers), headers });
    }
    const body = Buffer.from(reply.body ?? "");
    response.writeHead(reply.status, { ...reply.headers, "content-length": body.length });
    response.write(body.subarray(0, fault.truncateAt), () => response.destroy());
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return Object.assign(model, { url: `${options.tls === undefined ? "http" : "https"}://127.0.0.1:${port}` });
}

/** An error as S3 says it. */
export function refusal(status: number, code: string, message = code, headers: Record<string, string> = {}): Reply {
  return {
    status,
    headers,
    body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`,
  };
}

function send(response: ServerResponse, { method }: Asked, { status, headers = {}, body = "" }: Reply): void {
  const bytes = Buffer.from(body);
  // A HEAD answer says how long the body would be, and has none.
  response.writeHead(status, { "content-length": bytes.length, ...headers });
  response.end(method === "HEAD" ? undefined : bytes);
}

function obey(asked: Asked, objects: ModelServer["objects"], uploads: ModelServer["uploads"]): Reply {
  const { method, query, headers, body } = asked;
  const [, , ...rest] = asked.path.split("/");
  const key = rest.join("/");
  if (key === "" && method === "POST" && query.has("delete")) return deleteMany(asked, objects);
  if (key === "") return obeyBucket(asked, objects, uploads);
  const uploadId = query.get("uploadId");
  if (method === "PUT" && !isRight(headers, body)) return refusal(400, "BadDigest");
  if (method === "POST" && query.has("uploads")) {
    const id = randomBytes(8).toString("hex");
    uploads.set(id, { key, parts: new Map() });
    return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
  }
  if (uploadId !== null) {
    const upload = uploads.get(uploadId);
    if (upload === undefined) return refusal(404, "NoSuchUpload");
    if (method === "PUT") {
      upload.parts.set(Number(query.get("partNumber")), body);
      return { status: 200, headers: { etag: `"${digest("md5", body, "hex")}"` } };
    }
    if (method === "DELETE") {
      uploads.delete(uploadId);
      return { status: 204 };
    }
    if (headers["if-none-match"] === "*" && objects.has(key)) return refusal(412, "PreconditionFailed");
    const numbers = [...body.toString().matchAll(/<PartNumber>(\d+)</g)].map(([, number]) => Number(number));
    const parts = numbers.map((number) => upload.parts.get(number) ?? Buffer.alloc(0));
    objects.set(key, Object.assign(Buffer.concat(parts), { etag: compositeTag(parts), checksum: compositeSum(parts) }));
    uploads.delete(uploadId);
    return xml(
      `<CompleteMultipartUploadResult><ChecksumSHA256>${compositeSum(parts)}</ChecksumSHA256></CompleteMultipartUploadResult>`,
    );
  }
  if (method === "PUT") {
    if (headers["if-none-match"] === "*" && objects.has(key)) return refusal(412, "PreconditionFailed");
    objects.set(key, body);
    return { status: 200, headers: { etag: tagOf(body) } };
  }
  if (method === "DELETE") {
    objects.delete(key);
    return { status: 204 };
  }
  const found = objects.get(key);
  if (found === undefined) return refusal(404, "NoSuchKey");
  const sum = (found as { checksum?: string }).checksum ?? digest("sha256", found, "base64");
  const described = { etag: tagOf(found), "x-amz-checksum-sha256": sum };
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
  if (range === null) return { status: 200, headers: described, body: found };
  const [first, last] = [Number(range[1]), Math.min(Number(range[2]), found.length - 1)];
  if (first >= found.length) return refusal(416, "InvalidRange");
  const contentRange = { "content-range": `bytes ${first}-${last}/${found.length}` };
  return { status: 206, headers: { ...described, ...contentRange }, body: found.subarray(first, last + 1) };
}

/** Also of what is not there. */
function deleteMany({ headers, body }: Asked, objects: ModelServer["objects"]): Reply {
  // One of them is required.
  if (!Object.keys(headers).some((name) => name === "content-md5" || name.startsWith("x-amz-checksum-"))) {
    return refusal(400, "InvalidRequest");
  }
  const keys = [...body.toString().matchAll(/<Key>([^<]+)</g)].map(([, key = ""]) => key);
  if (keys.length > 1000) return refusal(400, "MalformedXML");
  for (const key of keys) objects.delete(key);
  return xml(`<DeleteResult>${keys.map((key) => `<Deleted><Key>${key}</Key></Deleted>`).join("")}</DeleteResult>`);
}

function obeyBucket({ method, query }: Asked, objects: ModelServer["objects"], uploads: ModelServer["uploads"]): Reply {
  if (method !== "GET") return { status: 200 };
  const prefix = query.get("prefix") ?? "";
  if (query.has("uploads")) {
    const rows = [...uploads].filter(([, { key }]) => key.startsWith(prefix));
    const shown = rows.map(([id, { key }]) => `<Upload><Key>${key}</Key><UploadId>${id}</UploadId></Upload>`);
    return xml(`<ListMultipartUploadsResult>${shown.join("")}</ListMultipartUploadsResult>`);
  }
  const after = query.get("marker") ?? "";
  const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
  const page = keys.slice(0, Number(query.get("max-keys") ?? 1000));
  const rows = page.map((key) => `<Contents><Key>${key}</Key><Size>${objects.get(key)?.length}</Size></Contents>`);
  const more = `<IsTruncated>${page.length < keys.length}</IsTruncated>`;
  return xml(`<ListBucketResult>${rows.join("")}${more}</ListBucketResult>`);
}

function xml(body: string): Reply {
  return { status: 200, headers: { "content-type": "application/xml" }, body: `<?xml version="1.0"?>${body}` };
}

function isRight(headers: Readonly<Record<string, string>>, body: Buffer): boolean {
  const sum = headers["x-amz-checksum-sha256"];
  const signed = headers["x-amz-content-sha256"];
  if (sum !== undefined && sum !== digest("sha256", body, "base64")) return false;
  return signed === undefined || signed === "UNSIGNED-PAYLOAD" || signed === digest("sha256", body, "hex");
}

function tagOf(found: Buffer): string {
  return (found as { etag?: string }).etag ?? `"${digest("md5", found, "hex")}"`;
}

function compositeTag(parts: readonly Buffer[]): string {
  const digests = Buffer.concat(parts.map((part) => createHash("md5").update(part).digest()));
  return `"${digest("md5", digests, "hex")}-${parts.length}"`;
}

function compositeSum(parts: readonly Buffer[]): string {
  const digests = Buffer.concat(parts.map((part) => createHash("sha256").update(part).digest()));
  return `${digest("sha256", digests, "base64")}-${parts.length}`;
}

function digest(algorithm: string, bytes: Buffer, form: "hex" | "base64"): string {
  return createHash(algorithm).update(bytes).digest(form);
}
