import dns from "node:dns";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import {
  type Asked,
  type Fault,
  type ModelServer,
  refusal,
  startModelServer,
} from "../../../../test/s3/model-server.ts";
import { ownTls } from "../../../../test/s3/tls.ts";
import { createCall } from "../../../runtime/index.ts";
import { createPhysicalKey } from "../../index.ts";
import type { S3Configuration } from "./configuration.ts";
import { failureFrom } from "./failures.ts";
import { s3Driver } from "./index.ts";
import { openBucket } from "./open-bucket.ts";

const call = createCall();
let server: ModelServer;

beforeEach(async () => {
  server = await startModelServer();
});
afterEach(() => server[Symbol.asyncDispose]());

const keys = { access_key: "model", secret_key: "model-secret" };

async function open(more: Record<string, unknown> = {}, under = call) {
  const config = s3Driver.schema.parse({ ...keys, url: server.url, bucket: "bucket", ...more });
  return await openBucket(config as S3Configuration, {}, under);
}

const isOfBucket = ({ path }: Asked) => path === "/bucket/";
/** As S3 answers when the bucket is not there until it is made. */
function withoutBucket(): (asked: Asked) => Fault | undefined {
  let isThere = false;
  return (asked) => {
    if (asked.method === "PUT" && isOfBucket(asked)) isThere = true;
    return isThere ? undefined : { instead: refusal(404, "NoSuchBucket") };
  };
}

test("asks for the bucket, and nothing else", async () => {
  await using _ = await open();
  expect(server.log.map(({ method, path }) => `${method} ${path}`)).toEqual(["HEAD /bucket/"]);
});

describe("a bucket that is not there", () => {
  test("is named, with what to do", async () => {
    server.fault = withoutBucket();
    const error = await failureOf(open());
    expect(error).toMatchObject({ code: "BACKEND_CONTAINER_MISSING", details: { container: "bucket" } });
    expect(error.hint).toBe("make the bucket bucket, or set create_bucket: true");
  });

  test("is made with create_bucket", async () => {
    server.fault = withoutBucket();
    await using _ = await open({ create_bucket: true });
    const made = server.log.find(({ method }) => method === "PUT");
    expect(made?.body.toString()).toBe("");
  });

  test("is made in its region", async () => {
    server.fault = withoutBucket();
    await using _ = await open({ create_bucket: true, region: "eu-west-1" });
    const made = server.log.find(({ method }) => method === "PUT");
    expect(made?.body.toString()).toContain("<LocationConstraint>eu-west-1</LocationConstraint>");
    expect(made?.headers.authorization).toContain("/eu-west-1/s3/");
  });

  test.each([
    ["may not be made", refusal(403, "AccessDenied"), "BACKEND_DENIED", /s3:CreateBucket/],
    ["has a name that another account has", refusal(409, "BucketAlreadyExists"), "CONFIG_INVALID", /another account/],
  ])("%s", async (_, instead, code, words) => {
    server.fault = ({ method }) => ({ instead: method === "PUT" ? instead : refusal(404, "NoSuchBucket") });
    const error = await failureOf(open({ create_bucket: true }));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
  });

  test("was made by another process meanwhile", async () => {
    const made = withoutBucket();
    server.fault = (asked) => {
      const fault = made(asked);
      return asked.method === "PUT" ? { instead: refusal(409, "BucketAlreadyOwnedByYou") } : fault;
    };
    await using _ = await open({ create_bucket: true });
  });
});

test("a user whom the server does not know is told from a bucket that is not there", async () => {
  // As versitygw answers.
  server.fault = () => ({ instead: refusal(404, "XAdminUserNotFound") });
  for (const create_bucket of [false, true]) {
    const error = await failureOf(open({ create_bucket }));
    expect(error).toMatchObject({ code: "BACKEND_DENIED", hint: expect.stringMatching(/^check access_key/) });
  }
  expect(server.log.some(({ method }) => method === "PUT")).toBe(false);
});

describe("another region", () => {
  const redirect = refusal(301, "PermanentRedirect", "use another endpoint", { "x-amz-bucket-region": "eu-central-1" });

  test("is named", async () => {
    server.fault = () => ({ instead: redirect });
    const error = await failureOf(open({ region: "us-west-2" }));
    expect(error).toMatchObject({
      code: "CONFIG_INVALID",
      details: { key: "region" },
      hint: "set region: eu-central-1",
    });
    expect(error.details.reason).toBe("the bucket bucket is in the region eu-central-1, not in us-west-2");
  });

  test("beside a url, the one that the server expects is signed for", async () => {
    server.fault = ({ headers }) =>
      headers.authorization?.includes("/garage/s3/")
        ? undefined
        : { instead: refusal(400, "AuthorizationHeaderMalformed", "the region is wrong; expecting 'garage'") };
    await using driver = await open();
    await driver.put(createPhysicalKey(), { open: async () => Readable.from([Buffer.from("x")]) }, call);
  });
});

describe("wrong credentials", () => {
  test.each([
    ["SignatureDoesNotMatch", "check secret_key: it does not belong to access_key"],
    ["InvalidAccessKeyId", "check access_key: the server does not know it, or it has expired"],
    ["AccessDenied", "allow s3:ListBucket on arn:aws:s3:::bucket to these credentials"],
  ])("%s", async (code, hint) => {
    server.fault = () => ({ instead: refusal(403, code) });
    expect(await failureOf(open())).toMatchObject({ code: "BACKEND_DENIED", hint });
  });
});

describe("a server that can't be reached", () => {
  test("is named", async () => {
    await server[Symbol.asyncDispose]();
    const error = await failureOf(open());
    expect(error).toMatchObject({ code: "BACKEND_UNREACHABLE", entry: { exitCode: 3 } });
    expect(error.hint).toContain(server.url);
    server = await startModelServer();
  });

  test("is waited for no longer than the call", async () => {
    const abort = new AbortController();
    server.fault = () => {
      abort.abort();
      return { silence: true };
    };
    expect((await failureOf(open({}, createCall({ signal: abort.signal })))).code).toBe("INPUT_INTERRUPTED");
  });

  test("503 is no missing bucket", async () => {
    server.fault = () => ({ instead: { status: 503 } });
    expect((await failureOf(open({ create_bucket: true }))).code).toBe("BACKEND_THROTTLED");
  });
});

describe("TLS", () => {
  let directory: string;
  let secure: ModelServer;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "stowage-s3-tls-"));
    secure = await startModelServer({ tls: ownTls });
    return async () => {
      await secure[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    };
  });

  test("an authority of its own is refused, and ca_file named", async () => {
    const error = await failureOf(open({ url: secure.url }));
    expect(error.code).toBe("BACKEND_UNREACHABLE");
    expect(error.hint).toContain("ca_file");
    expect(secure.log).toEqual([]);
  });

  test("a server that speaks none of it is told from one that is not trusted", async () => {
    const error = await failureOf(open({ url: server.url.replace("http:", "https:") }));
    expect(error.code).toBe("BACKEND_UNREACHABLE");
    expect(error.hint).toMatch(/speaks no TLS .* write http:/);
  });

  test.each([
    ["ERR_SSL_PACKET_LENGTH_TOO_LONG", /write http:/],
    ["ERR_TLS_CERT_ALTNAME_INVALID", /the name in url is not in the server's certificate/],
    ["CERT_HAS_EXPIRED", /has expired/],
    ["SELF_SIGNED_CERT_IN_CHAIN", /ca_file/],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", /ca_file/],
    ["ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION", /versions and ciphers/],
    ["ECONNREFUSED", /can be reached from here/],
  ])("%s has a hint of its own", (code, hint) => {
    const place = { bucket: "b", server: "https://s3.test", region: "us-east-1" };
    const error = Object.assign(new Error("it failed"), { code });
    expect(failureFrom(error, { operation: "open", permission: "s3:ListBucket" }, place).hint).toMatch(hint);
  });

  test("an authority of its own is trusted with ca_file", async () => {
    const path = join(directory, "ca.pem");
    await writeFile(path, ownTls.cert);
    await using driver = await open({ url: secure.url, ca_file: path });
    await driver.put(createPhysicalKey(), { open: async () => Readable.from([Buffer.from("x")]) }, call);
    expect(secure.objects.size).toBe(1);
  });

  test.each([
    ["is missing", undefined, /ENOENT/],
    ["holds no certificate", "none", /no certificate/],
  ])("a ca_file that %s", async (_, content, reason) => {
    const path = join(directory, "ca.pem");
    if (content !== undefined) await writeFile(path, content);
    const error = await failureOf(open({ url: secure.url, ca_file: path }));
    expect(error).toMatchObject({ code: "CONFIG_INVALID", details: { key: "ca_file" } });
    expect(error.details.reason).toMatch(reason);
  });
});

test("new objects get the storage class and the encryption that are configured, small and large", async () => {
  await using driver = await open({ storage_class: "STANDARD_IA", sse: "aws:kms", sse_kms_key_id: "the-key" });
  for (const sizeBytes of [10, 9_000_000]) {
    await driver.put(createPhysicalKey(), { open: async () => Readable.from([Buffer.alloc(sizeBytes)]) }, call);
  }
  const begun = server.log.filter(({ path, query, method }) => {
    const isUpload = method === "POST" && query.has("uploads");
    return !path.includes("stowage-probe") && (isUpload || (method === "PUT" && !query.has("uploadId")));
  });
  expect(begun).toHaveLength(2);
  for (const { headers } of begun) {
    expect(headers).toMatchObject({
      "x-amz-storage-class": "STANDARD_IA",
      "x-amz-server-side-encryption": "aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id": "the-key",
    });
  }
});

test("a url that the environment names does not lead elsewhere than the configuration says", async () => {
  vi.stubEnv("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
  vi.stubEnv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9");
  await using _ = await open();
  vi.unstubAllEnvs();
  expect(server.log).toHaveLength(1);
});

describe("names of hosts", () => {
  let asked: string[];
  /** No name leads out of this machine. */
  function resolveTo(address: string | undefined) {
    asked = [];
    vi.spyOn(dns, "lookup").mockImplementation(((host: string, _: unknown, done: Resolved) => {
      asked.push(host);
      if (address === undefined) done(Object.assign(new Error("not asked for in tests"), { code: "ENOTFOUND" }), []);
      else done(null, [{ address, family: 4 }]);
    }) as never);
  }
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });

  test("the virtual style has the bucket in it", async () => {
    resolveTo("127.0.0.1");
    const { port } = new URL(server.url);
    await using _ = await open({ url: `http://s3.test:${port}`, addressing_style: "virtual" });
    expect(server.log[0]).toMatchObject({ path: "/", headers: { host: `bucket.s3.test:${port}` } });
    expect(asked).toEqual(["bucket.s3.test"]);
  });

  test.each([
    ["the virtual style", { addressing_style: "virtual" }, "bucket.s3.test", "/base"],
    ["the path style", {}, "s3.test", "/bucket"],
  ])(
    "%s, for blobs too, after the path of the url if it has one, with a prefix that has to be escaped",
    async (_, more, host, base) => {
      resolveTo("127.0.0.1");
      const { port } = new URL(server.url);
      await using driver = await open({
        url: `http://s3.test:${port}${base.replace("/bucket", "")}`,
        prefix: "a b(ä)+/",
        ...more,
      });
      const key = createPhysicalKey();
      await driver.put(key, { bytes: Buffer.from("x"), open: async () => Readable.from(["x"]) }, call);
      await driver.get(key, undefined, call).then((stream) => stream.resume());
      await driver.delete(key, call);
      const path = `${base}/a b(ä)+/${key.slice(0, 2)}/${key}`;
      const about = server.log.filter((each) => each.path.includes(key));
      expect(about.map((each) => [each.method, each.path, each.headers.host])).toEqual(
        ["PUT", "GET", "DELETE"].map((method) => [method, path, `${host}:${port}`]),
      );
      const scope = /Credential=[^/]+\/\d{8}\/us-east-1\/s3\/aws4_request, SignedHeaders=[a-z0-9;-]*host;/;
      for (const { headers } of about) expect(headers.authorization).toMatch(scope);
    },
  );

  test.each([
    ["the configured region", { region: "us-west-2" }, "bucket.s3.us-west-2.amazonaws.com"],
    ["the environment's region", {}, "bucket.s3.eu-west-3.amazonaws.com"],
    ["path style", { region: "us-west-2", addressing_style: "path" }, "s3.us-west-2.amazonaws.com"],
    ["China", { region: "cn-north-1" }, "bucket.s3.cn-north-1.amazonaws.com.cn"],
  ])("AWS: %s", async (_, more, host) => {
    resolveTo(undefined);
    vi.stubEnv("AWS_REGION", "eu-west-3");
    expect((await failureOf(open({ url: undefined, ...more }))).code).toBe("BACKEND_UNREACHABLE");
    expect(asked).toEqual([host]);
  });

  test("AWS: no region anywhere is the oldest one, as with the original", async () => {
    resolveTo(undefined);
    for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) vi.stubEnv(name, undefined);
    vi.stubEnv("AWS_CONFIG_FILE", "/nowhere/config");
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials");
    expect((await failureOf(open({ url: undefined }))).code).toBe("BACKEND_UNREACHABLE");
    expect(asked[0]).toMatch(/^bucket[.]s3([.]us-east-1)?[.]amazonaws[.]com$/);
  });
});

type Resolved = (
  error: Error | null,
  addresses: readonly { readonly address: string; readonly family: number }[],
) => void;
