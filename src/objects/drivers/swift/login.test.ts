import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { untrustedTls } from "../../../../test/registry/tls.ts";
import { account, StandIn, type StandInOptions } from "../../../../test/swift/stand-in.ts";
import { createCall } from "../../../runtime/index.ts";
import type { DriverSurroundings, ObjectDriver } from "../../driver.ts";
import { createPhysicalKey } from "../../physical-key.ts";
import { swiftDriver } from "./index.ts";

const call = createCall();
let opened = new AsyncDisposableStack();
afterEach(async () => {
  await opened[Symbol.asyncDispose]();
  opened = new AsyncDisposableStack();
});

async function start(options: StandInOptions = {}): Promise<StandIn> {
  return opened.use(await StandIn.start(options));
}

async function open(section: object): Promise<ObjectDriver> {
  const config = swiftDriver.schema.parse({ container: "c", create_container: true, ...section });
  return opened.use(await swiftDriver.open(config, {} as DriverSurroundings, call));
}

const first = ({ origin }: StandIn) => ({ auth: `${origin}/auth/v1.0`, user: account.user, key: account.key });
const second = ({ origin }: StandIn) => ({
  os_auth_url: `${origin}/v2.0`,
  os_username: "tester",
  os_password: account.key,
  os_tenant_name: account.project,
  os_region_name: "two",
  os_endpoint_type: "internalURL",
});
const third = ({ origin }: StandIn) => ({
  auth_version: 3,
  os_auth_url: `${origin}/v3`,
  os_username: "tester",
  os_password: account.key,
  os_project_name: account.project,
  os_user_domain_name: account.domain,
  os_project_domain_name: account.domain,
  os_region_name: "two",
});

async function putAndGet(driver: ObjectDriver, text = "some bytes"): Promise<void> {
  const key = createPhysicalKey();
  const bytes = Buffer.from(text);
  await driver.put(key, { open: async () => Readable.from([bytes]), sizeBytes: bytes.length }, call);
  expect((await buffer(await driver.get(key, undefined, call))).equals(bytes)).toBe(true);
}

describe("logins, at a stand-in", () => {
  const ways: Readonly<Record<string, (server: StandIn) => object>> = {
    "version 1": first,
    "version 1 in the newer names": ({ origin }) => ({
      auth_version: "1.0",
      os_auth_url: `${origin}/auth/v1.0`,
      os_username: account.user,
      os_password: account.key,
    }),
    "version 2": second,
    "version 2, URL without a version": (server) => ({ ...second(server), os_auth_url: server.origin }),
    "version 2, project in the user": (server) => {
      const { os_tenant_name: project, ...rest } = second(server);
      return { ...rest, os_username: `${project}:tester` };
    },
    "version 3": third,
    "version 3, URL without a version": (server) => ({ ...third(server), os_auth_url: `${server.origin}/` }),
    "version 3 by ids": (server) => {
      const { os_auth_url, os_password, os_region_name } = third(server);
      return { auth_version: "3", os_auth_url, os_password, os_region_name, os_user_id: "u-1", os_project_id: "p-1" };
    },
    "an account's URL of one's own": (server) => ({
      ...third(server),
      os_region_name: "nowhere",
      os_storage_url: `${server.origin}/v1/AUTH_test/`,
    }),
  };
  test.each(Object.keys(ways))("%s", async (name) => {
    const server = await start();
    await putAndGet(await open(ways[name]?.(server) ?? {}));
    expect(server.logins).toHaveLength(1);
  });

  test("domains are Keystone's default where none is named", async () => {
    const server = await start();
    const { os_user_domain_name: _, os_project_domain_name: __, ...rest } = third(server);
    expect((await failureOf(open(rest))).code).toBe("BACKEND_DENIED");
    expect(server.logins).toEqual([
      {
        user: { name: "tester", domain: { id: "default" } },
        scope: { project: { name: account.project, domain: { id: "default" } } },
      },
    ]);
  });

  test("a token that is given needs no login", async () => {
    const server = await start();
    await open(first(server));
    const [token] = server.tokens;
    const driver = await open({ os_auth_token: token, os_storage_url: `${server.origin}/v1/AUTH_test` });
    await putAndGet(driver);
    server.revokeTokens();
    expect((await failureOf(driver.capabilities(call).then(() => driver.delete(createPhysicalKey(), call)))).code).toBe(
      "BACKEND_DENIED",
    );
    expect(server.logins).toHaveLength(1);
  });

  test("a key in a file is read anew for each login", async () => {
    const server = await start();
    const directory = await mkdtemp(join(tmpdir(), "stowage-swift-"));
    opened.defer(() => rm(directory, { recursive: true }));
    const key_file = join(directory, "key");
    const { key, ...rest } = first(server);
    await writeFile(key_file, `${key}\n`);
    const driver = await open({ ...rest, key_file });
    await writeFile(key_file, "another");
    server.revokeTokens();
    expect((await failureOf(driver.delete(createPhysicalKey(), call))).code).toBe("BACKEND_DENIED");
    await writeFile(key_file, key);
    await putAndGet(driver);
    await rm(key_file);
    server.revokeTokens();
    expect(await failureOf(driver.delete(createPhysicalKey(), call))).toMatchObject({ code: "CONFIG_INVALID" });
  });

  test.each([
    ["region", { os_region_name: "three" }, "os_region_name"],
    ["endpoint type", { os_region_name: undefined, os_endpoint_type: "adminURL" }, "os_endpoint_type"],
  ])("a %s that the catalog does not have", async (_, changes, key) => {
    const server = await start();
    expect(await failureOf(open({ ...third(server), ...changes }))).toMatchObject({
      code: "CONFIG_INVALID",
      details: { key },
    });
  });

  test.each([
    ["1", (server: StandIn) => ({ ...first(server), key: "wr0ng-key" })],
    ["2", (server: StandIn) => ({ ...second(server), os_password: "wr0ng-key" })],
    ["3", (server: StandIn) => ({ ...third(server), os_password: "wr0ng-key" })],
  ])("version %s with a wrong key is denied, which is not printed", async (_, section) => {
    const server = await start();
    const error = await failureOf(open(section(server)));
    expect(error).toMatchObject({ code: "BACKEND_DENIED", details: { permission: "log in" } });
    expect(error.details.resource).toContain(server.origin);
    expect(`${error.message} ${error.stack} ${JSON.stringify(error.serialize())}`).not.toContain("wr0ng");
  });

  test.each([
    ["not JSON", { status: 200, body: "<html>{token: s3cret-token" }, "BACKEND_FAILED"],
    ["of another shape", { status: 200, body: '{"token": 1}' }, "BACKEND_FAILED"],
    ["an error", { status: 500 }, "BACKEND_FAILED"],
    ["that asks to wait", { status: 429, headers: { "retry-after": "7" } }, "BACKEND_THROTTLED"],
    ["of a page that is not there", { status: 404 }, "CONFIG_INVALID"],
    ["too long", { status: 200, body: " ".repeat(2_000_000) }, "BACKEND_FAILED"],
  ])("an answer that is %s", async (_, fault, code) => {
    const server = await start();
    server.fail({ at: "POST /v3/auth/tokens", fault });
    const error = await failureOf(open(third(server)));
    expect(error.code).toBe(code);
    for (let at: unknown = error; at instanceof Error; at = at.cause) expect(String(at.stack)).not.toContain("s3cret");
  });

  test("a redirect is not followed: a key would go along", async () => {
    const server = await start();
    const other = await start();
    server.fail({ at: "GET /auth", fault: { status: 302, headers: { location: `${other.origin}/auth/v1.0` } } });
    expect((await failureOf(open(first(server)))).code).toBe("BACKEND_FAILED");
    expect(other.requests).toEqual([]);
  });
});

describe("tokens that end, at a stand-in", () => {
  test("one that was refused is renewed once, for all who wait", async () => {
    const server = await start();
    const driver = await open(first(server));
    server.revokeTokens();
    await Promise.all(Array.from({ length: 8 }, () => putAndGet(driver)));
    expect(server.logins).toHaveLength(2);
  });

  test("a body that has been begun is opened again", async () => {
    const server = await start();
    const driver = await open(first(server));
    await driver.capabilities(call);
    server.revokeTokens();
    await putAndGet(driver, "0123456789".repeat(300_000));
    expect(server.logins).toHaveLength(2);
  });

  test("refused again it is denied", async () => {
    const server = await start();
    const driver = await open(first(server));
    server.fail({ at: "PUT /v1", fault: { status: 401 }, times: 2 });
    const error = await failureOf(putAndGet(driver));
    expect(error).toMatchObject({ code: "BACKEND_DENIED", details: { permission: "write" } });
    for (const token of server.tokens) expect(JSON.stringify(error.serialize())).not.toContain(token);
    await putAndGet(driver);
  });

  test.each([first, second, third])("one whose end is near is renewed before it is refused (%#)", async (section) => {
    const server = await start({ tokenSeconds: 0.001 });
    const driver = await open(section(server));
    const before = server.logins.length;
    while (server.logins.length === before) await putAndGet(driver);
    expect(server.requests.filter((line) => line.startsWith("GET /v1")).length).toBeGreaterThan(0);
    expect(server.refusals).toBe(0);
  });

  test("a call that is aborted does not wait for the login, and does not end it", async () => {
    const server = await start();
    const driver = await open(first(server));
    server.revokeTokens();
    const abort = new AbortController();
    const aborted = failureOf(driver.delete(createPhysicalKey(), createCall({ signal: abort.signal })));
    abort.abort();
    expect((await aborted).code).toBe("INPUT_INTERRUPTED");
    await putAndGet(driver);
  });
});

describe("opening, at a stand-in", () => {
  test("the container is made only where the configuration asks for it", async () => {
    const server = await start();
    const error = await failureOf(open({ ...first(server), create_container: false }));
    expect(error).toMatchObject({ code: "BACKEND_CONTAINER_MISSING", details: { container: "c" } });
    expect(error.hint).toContain("create_container");
    expect(server.containers.size).toBe(0);
    await open(first(server));
    await open({ ...first(server), create_container: false });
    expect([...server.containers.keys()]).toEqual(["c"]);
  });

  test("nobody answers", async () => {
    const server = await start();
    const section = first(server);
    await server[Symbol.asyncDispose]();
    expect(await failureOf(open(section))).toMatchObject({ code: "BACKEND_UNREACHABLE", entry: { exitCode: 3 } });
  });

  test("a certificate that nobody trusts: refused with a hint, taken with insecure", async () => {
    const server = await start({ tls: untrustedTls });
    const error = await failureOf(open(first(server)));
    expect(error.code).toBe("BACKEND_UNREACHABLE");
    expect(error.hint).toContain("os_cacert");
    await putAndGet(await open({ ...first(server), insecure: true }));
  });

  test("os_cacert is trusted, for the name that its certificate has", async () => {
    const server = await start({ tls: untrustedTls });
    const directory = await mkdtemp(join(tmpdir(), "stowage-swift-"));
    opened.defer(() => rm(directory, { recursive: true }));
    const os_cacert = join(directory, "ca.pem");
    await writeFile(os_cacert, untrustedTls.cert);
    // Trusted now, but it is of another host: no other reason is left.
    expect(String(await failureOf(open({ ...first(server), os_cacert })))).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    const missing = failureOf(open({ ...first(server), os_cacert: join(directory, "none.pem") }));
    expect(await missing).toMatchObject({ code: "CONFIG_INVALID", details: { key: "os_cacert" } });
  });
});
