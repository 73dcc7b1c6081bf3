import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { failureOf } from "../../../test/conformance/failure.ts";
import { buildImage, buildIndex, mediaTypes, sha256 } from "../../../test/images/builder.ts";
import {
  type Fault,
  type RegistryOptions,
  startRegistry,
  type TestRegistry,
} from "../../../test/registry/registry-server.ts";
import { testSourceOptions } from "../../../test/registry/source-options.ts";
import { untrustedTls } from "../../../test/registry/tls.ts";
import { maskSecrets } from "../../config/index.ts";
import type { StowageError } from "../../errors/index.ts";
import { type Call, type Clock, createCall } from "../../runtime/index.ts";
import { parsePlatform } from "../platform.ts";
import { parseReference } from "../reference.ts";
import type { Descriptor, ImageSource } from "../types.ts";
import { classifyAddress } from "./addresses.ts";
import { HostWaits } from "./host-waits.ts";
import { defaultSettings, type RegistrySettings } from "./settings.ts";
import { openRegistry } from "./source.ts";

const call = createCall();
const PASSWORD = "a-password-that-must-not-be-seen";
const image = buildImage({ layers: [[{ path: "f", content: "x".repeat(5000) }]] });
const layer = image.layers[0]?.descriptor as unknown as Descriptor;

/** A clock whose waits are recorded and over at once. */
class TestClock implements Clock {
  readonly waits: number[] = [];
  time = Date.parse("2026-01-01T00:00:00Z");
  now(): Date {
    return new Date(this.time);
  }
  async sleep(ms: number): Promise<void> {
    this.waits.push(ms);
    this.time += ms;
  }
}

interface Setup extends AsyncDisposable {
  readonly registry: TestRegistry;
  readonly source: ImageSource;
  readonly clock: TestClock;
  readonly told: string[];
}

/** A registry with the image under `team/app:1`, and a source that asks it. */
async function setUp(
  parts: RegistryOptions & {
    readonly reference?: (registry: TestRegistry) => string;
    readonly credentials?: (registry: TestRegistry) => unknown;
    readonly settings?: Partial<RegistrySettings>;
    readonly limits?: Parameters<typeof testSourceOptions>[0] extends infer P
      ? NonNullable<P>["limits" & keyof P]
      : never;
    readonly insecure?: boolean;
  } = {},
): Promise<Setup> {
  const registry = await startRegistry(parts);
  registry.push("team/app", image, "1");
  const clock = new TestClock();
  const options = testSourceOptions({
    dockerAuthConfig: parts.credentials?.(registry),
    insecure: parts.insecure ?? false,
    ...(parts.limits ? { limits: parts.limits } : {}),
  });
  const text = parts.reference?.(registry) ?? `${registry.host}/team/app:1`;
  const hostWaits = new HostWaits();
  const settings = { ...defaultSettings, clock, random: () => 0.5, hostWaits, ...parts.settings };
  const source = openRegistry(parseReference(text), options, settings);
  return {
    registry,
    source,
    clock,
    told: options.told,
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

const login = (registry: TestRegistry) => ({
  auths: { [registry.host]: { auth: Buffer.from(`user:${PASSWORD}`).toString("base64") } },
});
const account = { username: "user", password: PASSWORD } as const;

async function bytesOf(source: ImageSource, descriptor = layer, from = call): Promise<string> {
  return sha256(Buffer.concat((await (await source.layers.open(descriptor, from)).toArray()) as Buffer[]));
}

describe("pull", () => {
  it("asks for every type of manifest, once by tag and then by digest only", async () => {
    await using setup = await setUp();
    const other = buildImage({ layers: [], architecture: "arm64" });
    const index = buildIndex([image, other], { attestations: true });
    setup.registry.push("team/app", index, "1");
    const found = await setup.source.resolve(parsePlatform("linux/amd64"), call);
    expect(found.digest).toBe(image.descriptor.digest);
    expect(found.index?.digest).toBe(index.descriptor.digest);
    expect(found.suggestedName).toBe(`${setup.registry.host}/team/app:1`);
    expect(await bytesOf(setup.source)).toBe(layer.digest);
    expect(setup.registry.seen("/manifests/1")).toHaveLength(1);
    const accept = setup.registry.requests[0]?.headers.accept ?? "";
    for (const type of ["ociIndex", "ociManifest", "dockerList", "dockerManifest"] as const) {
      expect(accept).toContain(mediaTypes[type]);
    }
    expect(setup.registry.requests[0]?.path).toBe("/v2/team/app/manifests/1");
  });

  it("goes by the bytes, whatever Docker-Content-Digest says of a tag", async () => {
    await using setup = await setUp();
    const lie = {
      "docker-content-digest": `sha256:${"0".repeat(64)}`,
      "content-type": `${mediaTypes.ociManifest}; charset=utf-8`,
    };
    setup.registry.fail({ path: "/manifests/1", faults: [{ replaceHeaders: lie }] });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });

  it("verifies a digest, which decides over a tag", async () => {
    await using setup = await setUp({
      reference: (registry) => `${registry.host}/team/app:other@${image.descriptor.digest}`,
    });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
    setup.registry.fail({ path: "/manifests/", faults: [{ replaceBody: Buffer.from("{}") }], repeat: true });
    expect((await failureOf(setup.source.resolve(undefined, call))).code).toBe("IMAGE_DIGEST_MISMATCH");
  });

  it.each([
    [{ replaceHeaders: { "content-type": mediaTypes.ociIndex } }, "IMAGE_MANIFEST_INVALID"],
    [{ replaceBody: Buffer.from('{"schemaVersion":1,"fsLayers":[]}') }, "IMAGE_SCHEMA1_UNSUPPORTED"],
    [
      {
        status: 200,
        headers: { "content-type": "application/vnd.docker.distribution.manifest.v1+prettyjws" },
        body: '{"schemaVersion":1,"fsLayers":[]}',
      },
      "IMAGE_SCHEMA1_UNSUPPORTED",
    ],
    [{ status: 200, headers: { "content-type": "text/html" }, body: "<html>" }, "IMAGE_MANIFEST_INVALID"],
    [{ status: 200, body: Buffer.alloc(5 * 1024 * 1024, 0x20) }, "LIMIT_EXCEEDED"],
    [{ replaceBody: Buffer.alloc(5 * 1024 * 1024, 0x20), chunked: true }, "LIMIT_EXCEEDED"],
    [{ status: 404 }, "IMAGE_NOT_FOUND"],
    [{ status: 403, body: '{"errors":[{"code":"DENIED","message":"no\\u0007 way"}]}' }, "ACCESS_DENIED"],
    [{ status: 401 }, "ACCESS_DENIED"],
    [{ status: 401, headers: { "www-authenticate": "Negotiate" } }, "ACCESS_DENIED"],
    [{ status: 418, body: "x".repeat(100_000) }, "REGISTRY_REFUSED"],
    [{ status: 302 }, "REGISTRY_ANSWER_INVALID"],
    [{ status: 302, headers: { location: "http://[" } }, "REGISTRY_ANSWER_INVALID"],
  ] satisfies [Fault, string][])("answers %j with %s", async (fault, code) => {
    await using setup = await setUp();
    setup.registry.fail({ path: "/manifests/1", faults: [fault], repeat: true });
    const error = await failureOf(setup.source.resolve(undefined, call));
    expect(error.code).toBe(code);
    expect(error.entry.exitCode).toBe(1);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: what a registry says is printed on terminals
    expect(error.message).not.toMatch(/[\x00-\x1f]/);
    expect(setup.clock.waits).toEqual([]);
  });

  it("names a configuration or layer that is missing, and asks no URL of a descriptor", async () => {
    await using elsewhere = await startRegistry();
    const urls = [`${elsewhere.url}/v2/x/blobs/${layer.digest}`];
    const foreign = buildImage({ layers: [{ content: [{ path: "f" }], urls }] });
    await using setup = await setUp();
    setup.registry.push("team/app", foreign, "1");
    const descriptor = foreign.layers[0]?.descriptor as unknown as Descriptor;
    setup.registry.blobs.delete(descriptor.digest);
    elsewhere.push("x", foreign);
    await setup.source.resolve(undefined, call);
    const missing = await failureOf(setup.source.layers.open({ ...descriptor, urls }, call));
    expect(missing.code).toBe("IMAGE_BLOB_MISSING");
    expect(elsewhere.requests).toEqual([]);
    setup.registry.blobs.delete(foreign.configDigest);
    const error = await failureOf(setup.source.resolve(undefined, call));
    expect(error.details).toEqual({ digest: foreign.configDigest });
  });
});

describe("when it goes wrong for a while", () => {
  it.each([408, 429, 500, 502, 503, 504])("%d is tried again, and told", async (status) => {
    await using setup = await setUp();
    setup.registry.fail({ path: "/manifests/1", faults: [{ status }, { status }] });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
    expect(setup.clock.waits).toEqual([1000, 2000]);
    expect(setup.told).toEqual([
      `${setup.registry.host} answered ${status}, trying again in 1 s`,
      `${setup.registry.host} answered ${status}, trying again in 2 s`,
    ]);
  });

  it("gives up after a bounded number of tries", async () => {
    await using setup = await setUp();
    setup.registry.fail({ path: "/manifests/1", faults: [{ status: 503 }], repeat: true });
    const error = await failureOf(setup.source.resolve(undefined, call));
    expect(error.code).toBe("REGISTRY_UNAVAILABLE");
    expect(error.entry.exitCode).toBe(3);
    expect(error.details).toMatchObject({ status: 503, attempts: 5 });
    expect(setup.registry.requests).toHaveLength(5);
    expect(setup.clock.waits).toEqual([1000, 2000, 4000, 8000]);
  });

  it("waits as long as the registry says, in seconds or as a date, but not for ever", async () => {
    await using setup = await setUp();
    const retryAfter = (value: string): Fault => ({ status: 429, headers: { "retry-after": value } });
    setup.registry.fail({
      path: "/manifests/1",
      faults: [retryAfter("7"), retryAfter("Thu, 01 Jan 2026 00:00:27 GMT"), retryAfter("86400")],
    });
    const error = await failureOf(setup.source.resolve(undefined, call));
    expect(error.code).toBe("REGISTRY_UNAVAILABLE");
    expect(setup.clock.waits).toEqual([7000, 20_000]);
  });

  it("tries again when the connection drops before the first byte of a blob or within a manifest", async () => {
    await using setup = await setUp();
    setup.registry.fail({ path: "/manifests/1", faults: ["none", { drop: "before-headers" }, { dropAfterBytes: 10 }] });
    setup.registry.fail({
      path: "/blobs/",
      faults: ["none", "none", { drop: "before-headers" }, { dropAfterBytes: 0 }],
    });
    await setup.source.resolve(undefined, call);
    await setup.source.resolve(undefined, call);
    expect(setup.clock.waits).toEqual([1000, 2000]);
    expect(await bytesOf(setup.source)).toBe(layer.digest);
    expect(setup.clock.waits).toEqual([1000, 2000, 1000, 2000]);
    expect(setup.told[0]).toBe(`${setup.registry.host} dropped the connection, trying again in 1 s`);
  });

  it("ends a blob whose connection breaks each time with an error of the stream", async () => {
    await using setup = await setUp();
    setup.registry.fail({
      path: "/blobs/",
      faults: [{ dropAfterBytes: 10 }, { drop: "before-headers" }],
      repeat: true,
    });
    const error = await failureOf(bytesOf(setup.source));
    expect(error.code).toBe("REGISTRY_UNREACHABLE");
    expect(error.entry.exitCode).toBe(3);
    expect(setup.registry.requests).toHaveLength(5);
  });

  it("does not wait for ever for a body or an answer that does not come", async () => {
    await using setup = await setUp({
      settings: { stallTimeoutMs: 100, headersTimeoutMs: 100, documentTimeoutMs: 100, attemptsMax: 2 },
    });
    setup.registry.fail({ path: "/blobs/", faults: [{ stallAfterBytes: 0 }], repeat: true });
    setup.registry.fail({ path: "/manifests/", faults: [{ stallAfterBytes: 10 }], repeat: true });
    expect((await failureOf(bytesOf(setup.source))).code).toBe("REGISTRY_UNREACHABLE");
    expect((await failureOf(setup.source.resolve(undefined, call))).code).toBe("REGISTRY_UNREACHABLE");
    const text = `${setup.registry.host} did not answer in time, trying again in 1 s`;
    expect(setup.told).toEqual([text, text]);
  });

  it.each([
    ["a longer body without length", { replaceBody: Buffer.alloc(10_000), chunked: true }],
    ["a shorter body without length", { replaceBody: Buffer.alloc(10), chunked: true }],
    ["a longer body", { replaceBody: Buffer.alloc(10_000) }],
    ["a shorter body", { replaceBody: Buffer.alloc(10) }],
    ["no body", { replaceBody: Buffer.alloc(0), chunked: true }],
  ] satisfies [string, Fault][])("refuses %s than the descriptor's size", async (_, fault) => {
    await using setup = await setUp({ ranges: false });
    setup.registry.fail({ path: "/blobs/", faults: [fault], repeat: true });
    expect((await failureOf(bytesOf(setup.source))).code).toBe("IMAGE_SIZE_MISMATCH");
  });

  it("says that nobody is there, without trying again", async () => {
    await using gone = await startRegistry();
    const { host } = gone;
    await gone[Symbol.asyncDispose]();
    const clock = new TestClock();
    const settings = {
      ...defaultSettings,
      clock,
      resolveHost: async () => {
        throw Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" });
      },
    };
    for (const reference of [`${host}/x:1`, "no-such-registry.test/x:1"]) {
      await using source = openRegistry(parseReference(reference), testSourceOptions(), settings);
      const error = await failureOf(source.resolve(undefined, call));
      expect(error.code).toBe("REGISTRY_UNREACHABLE");
      expect(error.entry.exitCode).toBe(3);
    }
    expect(clock.waits).toEqual([]);
  });

  it("stops waiting when the call is aborted", async () => {
    const controller = new AbortController();
    const clock: Clock = {
      now: () => new Date(0),
      sleep: (ms: number, waiting: Call) => {
        const wait = defaultSettings.clock.sleep(ms, waiting);
        controller.abort();
        return wait;
      },
    };
    await using setup = await setUp({ settings: { clock, random: () => 1 } });
    setup.registry.fail({ path: "/manifests/1", faults: [{ status: 503 }], repeat: true });
    const error = await failureOf(setup.source.resolve(undefined, createCall({ signal: controller.signal })));
    expect(error.code).toBe("INPUT_INTERRUPTED");
    expect(setup.registry.requests).toHaveLength(1);
  });
});

describe("login", () => {
  it("needs none where a token is given to anybody", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    await setup.source.resolve(undefined, call);
    expect(await bytesOf(setup.source)).toBe(layer.digest);
    expect(setup.registry.seen("/token")).toHaveLength(1);
    const { searchParams } = new URL(setup.registry.seen("/token")[0]?.path ?? "", setup.registry.url);
    expect(searchParams.getAll("scope")).toEqual(["repository:team/app:pull"]);
    expect(setup.registry.seen("/token")[0]?.headers.authorization).toBeUndefined();
    // No ping before.
    expect(setup.registry.requests[0]?.path).toBe("/v2/team/app/manifests/1");
  });

  it.each(["basic", "bearer"] as const)("by %s, with the user's credentials", async (kind) => {
    await using setup = await setUp({ auth: { kind, ...account }, credentials: login });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
    expect(await setup.source.layers.has(layer, call)).toBe(true);
    // Each challenge is met once.
    expect(setup.registry.requests.filter((request) => request.headers.authorization === undefined)).toHaveLength(1);
  });

  it.each(["basic", "bearer"] as const)(
    "by %s, refused with wrong or no credentials, which nobody sees",
    async (kind) => {
      await using wrong = await setUp({ auth: { kind, username: "user", password: "right" }, credentials: login });
      await using none = await setUp({ auth: { kind, ...account } });
      for (const setup of [wrong, none]) {
        const error = await failureOf(setup.source.resolve(undefined, call));
        expect(error.code).toBe("ACCESS_DENIED");
        expect(error.entry.exitCode).toBe(1);
        expect(error.hint).toContain("docker login");
        const shown = JSON.stringify([error.serialize(), setup.told, String(error.stack)]);
        expect(shown).not.toContain(PASSWORD);
        expect(shown).not.toContain(Buffer.from(`user:${PASSWORD}`).toString("base64"));
        expect(await setup.source.layers.has(layer, call)).toBe(false);
      }
    },
  );

  it("registers what it sends as secrets", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", ...account }, credentials: login });
    await setup.source.resolve(undefined, call);
    const [token = ""] = setup.registry.tokens;
    const sent = `Basic ${Buffer.from(`user:${PASSWORD}`).toString("base64")} ${token}`;
    expect(maskSecrets(sent)).toBe("Basic ******** ********");
  });

  it("gets a new token when the old one has expired, or is refused", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true, expiresIn: 300 } });
    await setup.source.resolve(undefined, call);
    setup.clock.time += 299_000;
    await setup.source.resolve(undefined, call);
    expect(setup.registry.seen("/token")).toHaveLength(2);
    setup.registry.tokens.clear();
    await setup.source.resolve(undefined, call);
    expect(setup.registry.seen("/token")).toHaveLength(3);
  });

  it("gives up on a registry that refuses its own tokens", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    const challenge = { "www-authenticate": `Bearer realm="${setup.registry.url}/token",service="test-service"` };
    setup.registry.fail({ path: "/manifests/", faults: [{ status: 401, headers: challenge }], repeat: true });
    expect((await failureOf(setup.source.resolve(undefined, call))).code).toBe("ACCESS_DENIED");
    expect(setup.registry.seen("/manifests/")).toHaveLength(2);
  });

  const identity = (registry: TestRegistry) => ({ auths: { [registry.host]: { identitytoken: "an-identity-token" } } });
  it.each([false, true])("by identity token (token service without POST: %s)", async (noPost) => {
    await using setup = await setUp({
      auth: { kind: "bearer", identityToken: "an-identity-token", noPost },
      credentials: identity,
    });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
    expect(setup.registry.seen("/token").map((request) => request.method)).toEqual(noPost ? ["POST", "GET"] : ["POST"]);
  });

  it("by a registry token as it is", async () => {
    await using setup = await setUp({
      auth: { kind: "bearer" },
      credentials: (registry) => ({ auths: { [registry.host]: { registrytoken: "ready-made" } } }),
    });
    setup.registry.tokens.add("ready-made");
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
    expect(setup.registry.seen("/token")).toEqual([]);
  });

  it.each([
    [{ status: 200, body: "{}" }, "REGISTRY_ANSWER_INVALID"],
    [{ status: 200, body: "<html>" }, "REGISTRY_ANSWER_INVALID"],
    [{ status: 200, body: '{"token":"a\\r\\nX-Evil: 1"}' }, "REGISTRY_ANSWER_INVALID"],
    [{ status: 200, body: Buffer.alloc(70_000, 0x20) }, "LIMIT_EXCEEDED"],
    [{ status: 200, body: '{"access_token":"not-known"}' }, "ACCESS_DENIED"],
    [{ status: 403 }, "ACCESS_DENIED"],
    [{ status: 404 }, "REGISTRY_REFUSED"],
  ] satisfies [Fault, string][])("whose token service answers %j is %s", async (fault, code) => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    setup.registry.fail({ path: "/token", faults: [fault], repeat: true });
    expect((await failureOf(setup.source.resolve(undefined, call))).code).toBe(code);
  });

  it("tries a token service again that is overloaded", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    setup.registry.fail({ path: "/token", faults: [{ status: 503 }, { drop: "before-headers" }] });
    await setup.source.resolve(undefined, call);
    expect(setup.clock.waits).toEqual([1000, 2000]);
  });

  it("takes the first challenge that it can meet", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    const realm = `${setup.registry.url}/token`;
    const headers = {
      "www-authenticate": `Negotiate abc==, BEARER service="test-service" , realm="${realm}", Basic realm="x"`,
    };
    setup.registry.fail({ path: "/manifests/", faults: [{ status: 401, headers }] });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });

  it("does not send credentials to a realm elsewhere, unless the user keeps some for it", async () => {
    await using elsewhere = await startRegistry({ auth: { kind: "bearer", ...account, anonymous: true } });
    const auth = { kind: "bearer", realm: `${elsewhere.url}/token` } as const;
    await using withheld = await setUp({ auth, credentials: login });
    const error = await failureOf(withheld.source.resolve(undefined, call));
    expect(error.code).toBe("ACCESS_DENIED");
    expect(elsewhere.requests.length).toBeGreaterThan(0);
    expect(elsewhere.requests.map((request) => request.headers.authorization)).toEqual([undefined]);
    expect(withheld.told[0]).toContain(`are not sent to ${elsewhere.host}`);

    await using own = await setUp({
      auth,
      credentials: (registry) => ({ auths: { ...login(registry).auths, ...login(elsewhere).auths } }),
    });
    // The registry believes the other's tokens.
    Object.defineProperty(own.registry, "tokens", { value: elsewhere.tokens });
    expect((await own.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });

  it.each(["file:///etc/passwd", "not a url", "http://169.254.169.254/token", "http://user:pw@127.0.0.1/"])(
    "refuses the realm %s",
    async (realm) => {
      await using setup = await setUp({ auth: { kind: "bearer", realm }, credentials: login });
      const error = await failureOf(setup.source.resolve(undefined, call));
      expect(["REGISTRY_REDIRECT_REFUSED", "REGISTRY_ANSWER_INVALID"]).toContain(error.code);
      expect(setup.registry.requests).toHaveLength(1);
    },
  );

  it("asks a credential helper, and goes on without one that fails", async () => {
    const directory = mkdtempSync(join(tmpdir(), "stowage-test-"));
    const log = join(directory, "asked");
    const script = (name: string, body: string) =>
      writeFileSync(join(directory, `docker-credential-${name}`), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    script("good", `cat >> ${log}; echo '{"ServerURL":"x","Username":"user","Secret":"${PASSWORD}"}'`);
    script("token", `cat > /dev/null; echo '{"Username":"<token>","Secret":"an-identity-token"}'`);
    script("none", "echo 'credentials not found in native keychain'; exit 1");
    script("broken", `echo 'secret ${PASSWORD}'; exit 3`);
    script("chatty", "exec yes");
    script("odd", "echo '[]'");
    const pull = async (helper: string, auth: RegistryOptions["auth"]) => {
      await using registry = await startRegistry(auth ? { auth } : {});
      registry.push("team/app", image, "1");
      const options = testSourceOptions({ dockerAuthConfig: { credHelpers: { [registry.host]: helper } } });
      const credentials = { ...options.credentials, path: `relative:${directory}:/usr/bin:/bin` };
      await using source = openRegistry(parseReference(`${registry.host}/team/app:1`), { ...options, credentials });
      try {
        await source.resolve(undefined, call);
        return { host: registry.host, told: options.told, code: "fine" };
      } catch (error) {
        return { host: registry.host, told: options.told, code: (error as StowageError).code };
      }
    };
    try {
      const good = await pull("good", { kind: "bearer", ...account });
      expect(good.code).toBe("fine");
      expect(readFileSync(log, "utf8")).toBe(good.host);
      expect((await pull("token", { kind: "bearer", identityToken: "an-identity-token" })).code).toBe("fine");
      expect(await pull("none", { kind: "basic", ...account })).toMatchObject({ code: "ACCESS_DENIED", told: [] });
      for (const helper of ["broken", "chatty", "odd", "missing", "../../bin/sh", "a/b"]) {
        const failed = await pull(helper, { kind: "bearer", anonymous: true });
        expect(failed.code).toBe("fine");
        expect(failed.told).toHaveLength(1);
        expect(failed.told[0]).toContain("going on without it");
        expect(failed.told[0]).not.toContain(PASSWORD);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("where it may be sent", () => {
  it("follows a redirect of a blob to another host, without the credentials", async () => {
    await using storage = await startRegistry();
    storage.push("any", image);
    await using setup = await setUp({
      auth: { kind: "basic", ...account },
      credentials: login,
      redirectBlobs: (digest) => `${storage.url}/v2/any/blobs/${digest}?signature=secret`,
    });
    await setup.source.resolve(undefined, call);
    expect(await bytesOf(setup.source)).toBe(layer.digest);
    expect(storage.requests.length).toBeGreaterThan(0);
    for (const request of storage.requests) expect(request.headers.authorization).toBeUndefined();
    // A redirect proves access as well, and nothing is asked of the storage.
    const before = storage.requests.length;
    expect(await setup.source.layers.has(layer, call)).toBe(true);
    expect(storage.requests).toHaveLength(before);
  });

  it("keeps the credentials on a redirect within the registry", async () => {
    await using setup = await setUp({ auth: { kind: "basic", ...account }, credentials: login });
    setup.registry.push("moved", image);
    setup.registry.fail({
      path: "/team/app/blobs/",
      faults: ["none", { status: 307, headers: { location: `/v2/moved/blobs/${layer.digest}` } }],
    });
    await setup.source.resolve(undefined, call);
    expect(await bytesOf(setup.source)).toBe(layer.digest);
  });

  it("meets no challenge of a host that it was redirected to", async () => {
    await using thief = await startRegistry({ auth: { kind: "basic", ...account } });
    await using setup = await setUp({
      credentials: (registry) => ({ auths: { ...login(registry).auths, ...login(thief).auths } }),
      redirectBlobs: (digest) => `${thief.url}/v2/any/blobs/${digest}`,
    });
    const error = await failureOf(setup.source.layers.open(layer, call));
    expect(error.code).toBe("ACCESS_DENIED");
    expect(error.details.host).toBe(thief.host);
    expect(thief.requests.map((request) => request.headers.authorization)).toEqual([undefined]);
  });

  it("follows a bounded number of redirects", async () => {
    await using setup = await setUp({ redirectBlobs: (digest) => `/v2/team/app/blobs/${digest}` });
    expect((await failureOf(setup.source.layers.open(layer, call))).code).toBe("REGISTRY_ANSWER_INVALID");
    expect(setup.registry.requests).toHaveLength(11);
  });

  /** A registry that seems to stand on the Internet: its name resolves to an address that counts as public. */
  const asPublic = (addresses: Readonly<Record<string, string>> = {}): Partial<RegistrySettings> => ({
    resolveHost: async (hostname) => [{ address: addresses[hostname] ?? "127.0.0.1", family: 4 }],
    classify: (address) => (address === "127.0.0.1" ? "public" : classifyAddress(address)),
  });
  const byName = (registry: TestRegistry) => `registry.test:${registry.port}/team/app:1`;

  it.each([
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.2/",
    "http://localhost:1/",
    "http://sub.localhost:1/",
    "http://2130706434/",
    "http://0x7f.2/",
    "http://10.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://0.0.0.0/",
    "http://100.64.0.1/",
    "http://named-private.test/",
    "http://named-link-local.test/",
    "ftp://example.test/",
    "file:///etc/passwd",
  ])("refuses a redirect from a public registry to %s", async (target) => {
    const settings = asPublic({ "named-private.test": "192.168.1.1", "named-link-local.test": "169.254.169.254" });
    await using setup = await setUp({ reference: byName, insecure: true, settings, redirectBlobs: () => target });
    const error = await failureOf(setup.source.layers.open(layer, call));
    expect(error.code).toBe("REGISTRY_REDIRECT_REFUSED");
    expect(error.entry.exitCode).toBe(1);
  });

  it("refuses link-local addresses even from a registry on this machine", async () => {
    await using setup = await setUp({ redirectBlobs: () => "http://169.254.169.254/" });
    expect((await failureOf(setup.source.layers.open(layer, call))).code).toBe("REGISTRY_REDIRECT_REFUSED");
  });

  it("refuses a redirect from https to plain http", async () => {
    await using setup = await setUp({ reference: byName, settings: asPublic() });
    const { checkTarget } = await transportOf(setup.registry);
    expect(() => checkTarget(new URL("http://example.com/"))).toThrow(/only https/);
    expect(() => checkTarget(new URL("https://example.com/"))).not.toThrow();
  });

  it("connects to the address that was checked", async () => {
    let lookups = 0;
    const settings = {
      ...asPublic(),
      resolveHost: async (hostname: string) => {
        if (hostname === "registry.test") return [{ address: "127.0.0.1", family: 4 }];
        lookups++;
        return [{ address: lookups === 1 ? "127.0.0.1" : "127.0.0.9", family: 4 }];
      },
    };
    await using storage = await startRegistry();
    storage.push("any", image);
    const redirectBlobs = (digest: string) => `http://rebinding.test:${storage.port}/v2/any/blobs/${digest}`;
    await using setup = await setUp({ reference: byName, insecure: true, settings, redirectBlobs });
    expect(await bytesOf(setup.source)).toBe(layer.digest);
    expect(lookups).toBe(1);
  });
});

describe("TLS", () => {
  const settings: Partial<RegistrySettings> = { resolveHost: async () => [{ address: "127.0.0.1", family: 4 }] };
  const byName = (registry: TestRegistry) => `registry.test:${registry.port}/team/app:1`;

  it("refuses a certificate that nobody vouches for, unless told otherwise", async () => {
    await using strict = await setUp({ tls: untrustedTls, reference: byName, settings });
    const error = await failureOf(strict.source.resolve(undefined, call));
    expect(error.code).toBe("REGISTRY_UNREACHABLE");
    expect(error.hint).toContain("--insecure");
    await using lax = await setUp({ tls: untrustedTls, reference: byName, settings, insecure: true });
    expect((await lax.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });

  it("never speaks plain HTTP to a name that is not this machine's, unless told otherwise", async () => {
    await using strict = await setUp({ reference: byName, settings });
    const error = await failureOf(strict.source.resolve(undefined, call));
    expect(error.code).toBe("REGISTRY_UNREACHABLE");
    expect(error.details).toEqual({
      host: `registry.test:${strict.registry.port}`,
      reason: "it does not speak TLS, and seems to speak plain HTTP",
    });
    expect(error.hint).toContain("--insecure");
    expect(strict.registry.requests).toEqual([]);
    await using lax = await setUp({ reference: byName, settings, insecure: true });
    expect((await lax.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });

  it("finds a registry on this machine that speaks TLS", async () => {
    await using setup = await setUp({ tls: untrustedTls, insecure: true });
    expect((await setup.source.resolve(undefined, call)).digest).toBe(image.descriptor.digest);
  });
});

/** The transport that a source of this registry would use, over https. */
async function transportOf(registry: TestRegistry) {
  const { Transport } = await import("./transport.ts");
  const transport = new Transport(
    new URL(`https://registry.test:${registry.port}`),
    { insecure: false },
    defaultSettings,
  );
  return { checkTarget: (url: URL) => transport.checkTarget(url) };
}

it("reads a blob slower than it comes without holding it", async () => {
  await using setup = await setUp();
  const big = buildImage({ layers: [{ content: Buffer.alloc(32 * 1024 * 1024), compression: "none" }] });
  setup.registry.push("team/app", big, "big");
  const body: Readable = await setup.source.layers.open(big.layers[0]?.descriptor as unknown as Descriptor, call);
  for await (const chunk of body) {
    expect((chunk as Buffer).length).toBeGreaterThan(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(body.readableLength).toBeLessThan(1024 * 1024);
  }
});
