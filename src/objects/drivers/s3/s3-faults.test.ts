import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import {
  type Asked,
  type Fault,
  type ModelServer,
  refusal,
  startModelServer,
} from "../../../../test/s3/model-server.ts";
import { createCall, defaultRetryPolicy } from "../../../runtime/index.ts";
import { createPhysicalKey } from "../../index.ts";
import type { S3Configuration } from "./configuration.ts";
import { s3Driver } from "./index.ts";
import { openBucket } from "./open-bucket.ts";
import type { S3Driver } from "./s3-driver.ts";

const call = createCall();
const MiB = 1024 * 1024;
const partBytes = 5 * MiB;
const secretKey = "the-secret-of-the-test";
let server: ModelServer;
let driver: S3Driver;
/** What the retries of single parts waited. */
let waits: number[];

beforeEach(async () => {
  server = await startModelServer();
  waits = [];
  driver = await open({});
  return async () => {
    await driver[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  };
});

async function open(more: Record<string, unknown>): Promise<S3Driver> {
  const keys = { access_key: "model", secret_key: secretKey };
  const config = s3Driver.schema.parse({ ...keys, url: server.url, bucket: "bucket", prefix: "p/", ...more });
  const clock = {
    ...defaultRetryPolicy.clock,
    async sleep(ms: number) {
      waits.push(ms);
    },
  };
  return await openBucket(
    config as S3Configuration,
    { partBytes, retryPolicy: { ...defaultRetryPolicy, clock } },
    call,
  );
}

const isPut = ({ method, query, path }: Asked) =>
  method === "PUT" && !query.has("uploadId") && !path.includes("stowage-probe");
const isPart = ({ method, query, path }: Asked) =>
  method === "PUT" && query.has("uploadId") && !path.includes("stowage-probe");
const isComplete = ({ method, query, path }: Asked) =>
  method === "POST" && query.has("uploadId") && !path.includes("stowage-probe");
const isGet = ({ method, path }: Asked) => method === "GET" && path.length > "/bucket/".length;

/** The first `count` requests that fit have the fault. */
function failing(fits: (asked: Asked) => boolean, fault: Fault, count = Number.POSITIVE_INFINITY): void {
  let left = count;
  server.fault = (asked) => (fits(asked) && left-- > 0 ? fault : undefined);
}

function body(bytes: Buffer, sizeBytes: number | undefined = bytes.length) {
  return { open: async () => Readable.from([bytes]), ...(sizeBytes === undefined ? {} : { sizeBytes }) };
}

const small = Buffer.from("a small document");
const large = Buffer.alloc(2 * partBytes + 77, "large document ");

describe("a put of one request", () => {
  test.each([
    ["503 SlowDown", refusal(503, "SlowDown", "Please reduce your request rate."), "BACKEND_THROTTLED"],
    ["503 without words", { status: 503 }, "BACKEND_THROTTLED"],
    ["429", { status: 429 }, "BACKEND_THROTTLED"],
    ["500", refusal(500, "InternalError"), "BACKEND_FAILED"],
    ["502 of a proxy", { status: 502, body: "<html>Bad Gateway</html>" }, "BACKEND_FAILED"],
    ["504", { status: 504 }, "BACKEND_FAILED"],
    ["507", { status: 507 }, "BACKEND_FULL"],
    ["a full MinIO", refusal(507, "XMinioStorageFull"), "BACKEND_FULL"],
    ["403", refusal(403, "AccessDenied"), "BACKEND_DENIED"],
    ["401", refusal(401, "Unauthorized"), "BACKEND_DENIED"],
    ["a bucket that has gone", refusal(404, "NoSuchBucket"), "BACKEND_CONTAINER_MISSING"],
    ["a body damaged on its way", refusal(400, "BadDigest"), "BACKEND_FAILED"],
  ] as const)("%s", async (_, instead, code) => {
    failing(isPut, { instead });
    const key = createPhysicalKey();
    expect((await failureOf(driver.put(key, body(small), call))).code).toBe(code);
    expect([...server.objects.keys()]).toEqual([]);
  });

  test("a server that asks for time gets it", async () => {
    failing(isPut, { instead: refusal(503, "SlowDown", "slow", { "retry-after": "7" }) });
    const error = await failureOf(driver.put(createPhysicalKey(), body(small), call));
    expect(error).toMatchObject({ code: "BACKEND_THROTTLED", details: { retryAfterMs: 7000 } });
  });

  test.each(["before", "after"] as const)("a connection cut %s the effect", async (cut) => {
    failing(isPut, { cut });
    const error = await failureOf(driver.put(createPhysicalKey(), body(small), call));
    expect(error).toMatchObject({ code: "BACKEND_UNREACHABLE", entry: { retry: "later" } });
  });

  test.each([
    ["a cut connection", { cut: "after" }],
    ["a 500", { after: refusal(500, "InternalError") }],
  ] as const)("that took effect before %s, and is repeated, succeeds", async (_, fault) => {
    const key = createPhysicalKey();
    failing(isPut, fault, 1);
    await failureOf(driver.put(key, body(small), call));
    const again = await driver.put(key, body(small), call);
    expect(again).toMatchObject({ key, sizeBytes: small.length, digest: expect.stringMatching(/^sha256:/) });
    expect(await buffer(await driver.get(key, undefined, call))).toEqual(small);
  });

  test("the same where the server tells no checksum: the ETag shows it", async () => {
    const key = createPhysicalKey();
    await driver.put(key, body(small), call);
    const isHead = ({ method, path }: Asked) => method === "HEAD" && path !== "/bucket/";
    failing(isHead, {
      change(bytes, headers) {
        delete headers["x-amz-checksum-sha256"];
        return bytes;
      },
    });
    expect(await driver.put(key, body(small), call)).toMatchObject({ sizeBytes: small.length });
    const other = Buffer.from(small).fill("x");
    expect((await failureOf(driver.put(key, body(other), call))).code).toBe("BACKEND_KEY_EXISTS");
  });

  test("a conflict with another writer who then won is a key that exists", async () => {
    const key = createPhysicalKey();
    failing(isPut, { instead: refusal(409, "ConditionalRequestConflict") });
    expect((await failureOf(driver.put(key, body(small), call))).code).toBe("BACKEND_FAILED");
    server.objects.set(`p/${key.slice(0, 2)}/${key}`, Buffer.from("the other's"));
    expect((await failureOf(driver.put(key, body(small), call))).code).toBe("BACKEND_KEY_EXISTS");
  });

  test("a server that stays silent is given up", async () => {
    await driver.capabilities(call);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      server.fault = () => {
        vi.advanceTimersByTime(61_000);
        return { silence: true };
      };
      const error = await failureOf(driver.put(createPhysicalKey(), body(small), call));
      expect(error).toMatchObject({ code: "BACKEND_STALLED", details: { operation: "put", silentMs: 60_000 } });
    } finally {
      vi.useRealTimers();
    }
  });

  test("a silent server is given up when the call is", async () => {
    const abort = new AbortController();
    await driver.capabilities(call);
    server.fault = (asked) => {
      if (!isPut(asked)) return undefined;
      abort.abort();
      return { silence: true };
    };
    const error = await failureOf(driver.put(createPhysicalKey(), body(small), createCall({ signal: abort.signal })));
    expect(error.code).toBe("INPUT_INTERRUPTED");
  });
});

describe("a put of many parts", () => {
  test("repeats the parts that fail, and only those", async () => {
    const attempts = new Map<string, number>();
    server.fault = (asked) => {
      if (!isPart(asked)) return undefined;
      const part = asked.query.get("partNumber") ?? "";
      const attempt = attempts.get(part) ?? 0;
      attempts.set(part, attempt + 1);
      const faults: Fault[] = [{ instead: refusal(503, "SlowDown") }, { cut: "before" }, { cut: "after" }];
      return part === "2" ? undefined : faults[attempt];
    };
    const key = createPhysicalKey();
    const stored = await driver.put(key, body(large), call);
    expect(stored.digest).toMatch(/^sha256:/);
    expect((await buffer(await driver.get(key, undefined, call))).equals(large)).toBe(true);
    expect(Object.fromEntries(attempts)).toEqual({ 1: 4, 2: 1, 3: 4 });
    expect(waits).toHaveLength(6);
    expect(server.log.filter(({ method, query }) => method === "POST" && query.has("uploads")).length).toBe(2); // with the probe's
    expect([...server.uploads.keys()]).toEqual([]);
  });

  test("a storm that does not end: fails, and aborts the upload", async () => {
    failing(isPart, { instead: refusal(503, "SlowDown") });
    const error = await failureOf(driver.put(createPhysicalKey(), body(large), call));
    expect(error.code).toBe("BACKEND_THROTTLED");
    expect([...server.uploads.keys()]).toEqual([]);
    expect([...server.objects.keys()]).toEqual([]);
  });

  test("what can't be aborted is told, and taken by a purge", async () => {
    const isAbort = ({ method, query, path }: Asked) =>
      method === "DELETE" && query.has("uploadId") && !path.includes("stowage-probe");
    server.fault = (asked) => {
      if (isAbort(asked)) return { instead: refusal(403, "AccessDenied") };
      return isPart(asked) ? { instead: refusal(400, "InvalidArgument") } : undefined;
    };
    const key = createPhysicalKey();
    expect((await failureOf(driver.put(key, body(large), call))).code).toBe("BACKEND_FAILED");
    expect([...server.uploads.keys()]).toHaveLength(1);
    server.fault = () => undefined;
    await driver.purge(createPhysicalKey(), undefined, call);
    expect([...server.uploads.keys()]).toHaveLength(1);
    await driver.purge(key, undefined, call);
    expect([...server.uploads.keys()]).toEqual([]);
  });

  test.each([
    ["500", { after: refusal(500, "InternalError") }],
    ["a cut connection", { cut: "after" }],
    ["200 with an error in it", { after: { ...refusal(200, "InternalError"), status: 200 } }],
  ] as const)("completed, but answered with %s: succeeds", async (_, fault) => {
    failing(isComplete, fault, 1);
    const key = createPhysicalKey();
    const stored = await driver.put(key, body(large, undefined), call);
    expect(stored).toMatchObject({ sizeBytes: large.length, digest: expect.stringMatching(/^sha256:/) });
    expect((await buffer(await driver.get(key, undefined, call))).equals(large)).toBe(true);
    expect([...server.uploads.keys()]).toEqual([]);
  });

  test("completed, every answer lost; the whole put repeated succeeds, and leaves no upload", async () => {
    const key = createPhysicalKey();
    const complete = failureOf(driver.put(key, body(large), call));
    failing(isComplete, { cut: "after" });
    await complete;
    server.fault = () => undefined;
    await driver.put(key, body(large), call);
    expect([...server.uploads.keys()]).toEqual([]);
    expect((await failureOf(driver.put(key, body(Buffer.alloc(large.length)), call))).code).toBe("BACKEND_KEY_EXISTS");
    expect([...server.uploads.keys()]).toEqual([]);
  });

  test("a checksum of the whole that is another: no digest is claimed", async () => {
    failing(isComplete, {
      change: (answer) => Buffer.from(answer.toString().replace(/<Checksum.*<\/Checksum\w+>/, "")),
    });
    const stored = await driver.put(createPhysicalKey(), body(large), call);
    expect(stored.digest).toBeUndefined();
  });

  test("no more of a body is taken than a few parts have room for", async () => {
    const abort = new AbortController();
    let taken = 0;
    const pieces = async function* () {
      for (; taken < 300; taken++) yield Buffer.alloc(MiB, taken);
    };
    let sent = 0;
    const fourAreSent = Promise.withResolvers<void>();
    server.fault = (asked) => {
      if (!isPart(asked)) return undefined;
      if (++sent === 4) fourAreSent.resolve();
      return { silence: true };
    };
    const source = Readable.from(pieces(), { highWaterMark: 1 });
    const put = driver.put(createPhysicalKey(), { open: async () => source }, createCall({ signal: abort.signal }));
    const failure = failureOf(put);
    await fourAreSent.promise;
    // Four on their way, and no buffer for a fifth.
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
    expect(sent).toBe(4);
    expect(taken).toBeLessThanOrEqual((4 * partBytes) / MiB + 2);
    abort.abort();
    expect((await failure).code).toBe("INPUT_INTERRUPTED");
    expect([...server.uploads.keys()]).toEqual([]);
  });
});

describe("a get", () => {
  async function stored(bytes: Buffer) {
    const key = createPhysicalKey();
    await driver.put(key, body(bytes), call);
    return key;
  }

  test.each([0, 5, MiB])("a body cut after %i bytes is a failure", async (truncateAt) => {
    const key = await stored(Buffer.alloc(2 * MiB, "x"));
    failing(isGet, { truncateAt });
    const error = await failureOf(driver.get(key, undefined, call).then(buffer));
    expect(["BACKEND_FAILED", "BACKEND_UNREACHABLE"]).toContain(error.code);
    expect(error.entry.retry).toBe("later");
  });

  test.each([0, 5, 50_000])("a short body cut after %i bytes is one too", async (truncateAt) => {
    const key = await stored(Buffer.alloc(100_000, "x"));
    failing(isGet, { truncateAt });
    const error = await failureOf(driver.get(key, undefined, call));
    expect(error).toMatchObject({ code: "BACKEND_UNREACHABLE", entry: { retry: "later" } });
  });

  test("a shorter body of an honest length, for a range, is a failure", async () => {
    const key = await stored(large);
    failing(isGet, { change: (bytes) => bytes.subarray(0, 10) });
    const error = await failureOf(driver.get(key, { first: 5, last: 100 }, call).then(buffer));
    expect(error).toMatchObject({ code: "BACKEND_FAILED", details: { operation: "get", key } });
  });

  test("another range than the one asked for is a failure", async () => {
    const key = await stored(large);
    failing(isGet, {
      change(bytes, headers) {
        headers["content-range"] = `bytes 50-145/${large.length}`;
        return bytes;
      },
    });
    const error = await failureOf(driver.get(key, { first: 5, last: 100 }, call).then(buffer));
    expect(error).toMatchObject({ code: "BACKEND_FAILED", details: { operation: "get", key } });
  });

  test("a server that knows no ranges: the right bytes all the same", async () => {
    const key = await stored(large);
    failing(isGet, { instead: { status: 200, body: large } });
    const read = await buffer(await driver.get(key, { first: 1000, last: 1999 }, call));
    expect(read.equals(large.subarray(1000, 2000))).toBe(true);
  });

  test("streams that are destroyed free their sockets", async () => {
    const key = await stored(Buffer.alloc(8 * MiB));
    const streams = await Promise.all(Array.from({ length: 20 }, () => driver.get(key, undefined, call)));
    expect(server.openSockets()).toBeGreaterThanOrEqual(20);
    for (const stream of streams) stream.destroy();
    await driver[Symbol.asyncDispose]();
    await expect.poll(() => server.openSockets()).toBe(0);
  });

  test("streams that are read to the end give their sockets back", async () => {
    const key = await stored(small);
    for (let round = 0; round < 30; round++) await buffer(await driver.get(key, undefined, call));
    expect(server.openSockets()).toBeLessThan(5);
  });
});

describe("many deletions in one request", () => {
  const isDeletion = ({ method, query }: Asked) => method === "POST" && query.has("delete");

  async function stored(count: number) {
    const blobs = [];
    for (let index = 0; index < count; index++) blobs.push({ key: createPhysicalKey(), sizeBytes: small.length });
    for (const { key } of blobs) await driver.put(key, body(small), call);
    return blobs;
  }

  test("only what was never sent in parts, and a thousand at a time", async () => {
    const blobs = Array.from({ length: 2001 }, () => ({ key: createPhysicalKey(), sizeBytes: 1000 }));
    const others = [undefined, 6 * MiB].map((sizeBytes) => ({ key: createPhysicalKey(), sizeBytes }));
    const gone = await driver.purgeMany([...others, ...blobs], call);
    expect(gone).toEqual(new Set(blobs.map(({ key }) => key)));
    expect(server.log.filter(isDeletion)).toHaveLength(3);
  });

  test("what the server could not delete, or does not name, or names though it was not asked, is not gone", async () => {
    const blobs = await stored(4);
    const names = blobs.map(({ key }) => `p/${key.slice(0, 2)}/${key}`);
    const stranger = createPhysicalKey();
    failing(isDeletion, {
      instead: {
        status: 200,
        body: `<?xml version="1.0"?><DeleteResult><Deleted><Key>${names[0]}</Key></Deleted>
          <Deleted><Key>p/${stranger.slice(0, 2)}/${stranger}</Key></Deleted><Deleted><Key>${names[3]?.slice(2)}</Key></Deleted>
          <Error><Key>${names[1]}</Key><Code>InternalError</Code><Message>later</Message></Error></DeleteResult>`,
      },
    });
    expect([...(await driver.purgeMany(blobs, call))]).toEqual([blobs[0]?.key]);
  });

  test.each([
    ["a server that can't", refusal(501, "NotImplemented"), "BACKEND_FAILED"],
    ["one that may not", refusal(403, "AccessDenied"), "BACKEND_DENIED"],
    ["one that is busy", refusal(503, "SlowDown"), "BACKEND_THROTTLED"],
  ])("%s fails as a whole, and deletes one by one", async (_, instead, code) => {
    const blobs = await stored(2);
    failing(isDeletion, { instead });
    expect((await failureOf(driver.purgeMany(blobs, call))).code).toBe(code);
    for (const { key, sizeBytes } of blobs) await driver.purge(key, sizeBytes, call);
    expect(server.objects.size).toBe(0);
  });
});

describe("a listing", () => {
  test("shows what has the shape of our keys, and nothing else", async () => {
    const key = createPhysicalKey();
    await driver.put(key, body(small), call);
    const fan = key.slice(0, 2);
    const strangers = [
      `p/${fan}/${key}.tmp`,
      `p/${key}`,
      `p/zz/${key}`,
      `q/${fan}/${key}`,
      "p/readme",
      `p/00/${"f".repeat(32)}`,
    ];
    for (const name of strangers) server.objects.set(name, small);
    const found = [];
    for await (const blob of driver.list(undefined, call)) found.push(blob);
    expect(found).toEqual([{ key, sizeBytes: small.length }]);
  });

  test("skips what is others', however much that is, and misses nothing of ours", async () => {
    const keys = ["00", "0a", "0b", "ab", "ff"].map((fan) => `${fan}${createPhysicalKey().slice(2)}`);
    for (const key of keys) server.objects.set(`p/${key.slice(0, 2)}/${key}`, small);
    for (const name of ["#", "/", "0x", "0a/z", "0az", "abc", "fz", "gone", "\u{1f600}"]) {
      for (let count = 0; count < 3000; count++) server.objects.set(`p/${name}${count}`, Buffer.alloc(0));
    }
    const asked = server.log.length;
    const found = [];
    for await (const blob of driver.list(undefined, call)) found.push(blob.key);
    expect(found).toEqual(keys);
    expect(server.log.length - asked).toBeLessThan(12);
  });

  test("without an end is a failure", async () => {
    failing(({ method }) => method === "GET", { instead: { status: 200, body: Buffer.alloc(17 * MiB, "<a>") } });
    const listing = driver.list(undefined, call)[Symbol.asyncIterator]().next();
    expect((await failureOf(listing)).message).toContain("more than 16777216 bytes");
  });

  test("out of order, or not going on, is a failure", async () => {
    const [one, other] = [createPhysicalKey(), createPhysicalKey()].toSorted();
    const row = (key = "") => `<Contents><Key>p/${key.slice(0, 2)}/${key}</Key><Size>1</Size></Contents>`;
    const page = (rows: string, more: boolean) => ({
      instead: { status: 200, body: `<ListBucketResult>${rows}<IsTruncated>${more}</IsTruncated></ListBucketResult>` },
    });
    const all = async () => {
      for await (const _ of driver.list(undefined, call));
    };
    failing(({ method }) => method === "GET", page(row(other) + row(one), false));
    expect((await failureOf(all())).code).toBe("BACKEND_FAILED");
    failing(({ method }) => method === "GET", page(row(one), true));
    expect((await failureOf(all())).code).toBe("BACKEND_FAILED");
    failing(({ method }) => method === "GET", page("", true));
    expect((await failureOf(all())).code).toBe("BACKEND_FAILED");
  });
});

describe("errors", () => {
  test("name what is missing", async () => {
    const key = createPhysicalKey();
    const object = `arn:aws:s3:::bucket/p/${key.slice(0, 2)}/${key}`;
    await driver.capabilities(call);
    server.fault = () => ({ instead: refusal(403, "AccessDenied", "Access Denied") });
    const denied = async (work: Promise<unknown>) => (await failureOf(work)).details;
    expect(await denied(driver.put(key, body(small), call))).toMatchObject({
      permission: "s3:PutObject",
      resource: object,
    });
    expect(await denied(driver.get(key, undefined, call))).toMatchObject({
      permission: "s3:GetObject",
      resource: object,
    });
    expect(await denied(driver.delete(key, call))).toMatchObject({ permission: "s3:DeleteObject", resource: object });
    const listing = driver.list(undefined, call)[Symbol.asyncIterator]().next();
    expect(await denied(listing)).toMatchObject({ permission: "s3:ListBucket", resource: "arn:aws:s3:::bucket" });
    const error = await failureOf(driver.put(key, body(small), call));
    expect(error.hint).toBe(`allow s3:PutObject on ${object} to these credentials`);
  });

  test("name a clock that is wrong", async () => {
    const date = new Date(Date.now() + 3 * 3_600_000).toUTCString();
    server.fault = () => ({ instead: refusal(403, "RequestTimeTooSkewed", "too large", { date }) });
    const error = await failureOf(driver.get(createPhysicalKey(), undefined, call));
    expect(error).toMatchObject({ code: "BACKEND_DENIED" });
    expect(error.hint).toMatch(/clock: it and the server's differ by 180 minutes/);
  });

  test("hold no secret and nothing of a signature, whatever the server says", async () => {
    server.fault = ({ headers }) => ({
      instead: refusal(
        403,
        "AccessDenied",
        `you sent ${headers.authorization} ${secretKey} X-Amz-Signature=abc123def\n\u001b[31m`,
      ),
    });
    const error = await failureOf(driver.get(createPhysicalKey(), undefined, call));
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      const text = `${cause.message} ${cause.stack} ${JSON.stringify(cause)} ${String((cause as { hint?: string }).hint)}`;
      expect(text).not.toMatch(/Signature=[0-9a-f]|abc123def|AWS4-HMAC-SHA256 Credential=m/);
      expect(text).not.toContain("\u001b");
      expect(text).not.toContain(secretKey);
      expect(Object.keys(cause)).not.toContain("$response");
    }
  });
});

test("a bucket whose requests are signed in another way is served by the SDK alone", async () => {
  const session = ["SessionToken", "SecretAccessKey", "AccessKeyId"]
    .map((name) => `<${name}>session</${name}>`)
    .join("");
  const expires = `<Expiration>${new Date(Date.now() + 3_600_000).toISOString()}</Expiration>`;
  const opened = `<CreateSessionResult><Credentials>${session}${expires}</Credentials></CreateSessionResult>`;
  server.fault = ({ method, path, query }) => {
    if (query.has("session")) return { instead: { status: 200, body: opened } };
    return method === "HEAD" && path.endsWith("//") ? { instead: { status: 200 } } : undefined;
  };
  await using express = await open({ bucket: "bucket--use1-az4--x-s3" });
  const key = createPhysicalKey();
  await express.put(key, { ...body(small), bytes: small }, call);
  const asked = server.log.filter(({ path }) => path.includes(key));
  expect(asked.map(({ headers }) => headers["x-amz-s3session-token"])).toEqual(["session"]);
  expect(await buffer(await express.get(key, undefined, call))).toEqual(small);
  await express.delete(key, call);
  expect((await failureOf(express.get(key, undefined, call))).code).toBe("BACKEND_KEY_MISSING");
});
