import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { account, type Fault, StandIn, type StandInOptions } from "../../../../test/swift/stand-in.ts";
import { maskSecrets } from "../../../config/index.ts";
import { createCall, createLogger } from "../../../runtime/index.ts";
import type { BodySource, DriverSurroundings, ObjectDriver, PhysicalKey } from "../../driver.ts";
import { createPhysicalKey } from "../../physical-key.ts";
import { swiftDriver } from "./index.ts";

// All of this at a loopback stand-in, which fails on demand as no real Swift does.
const call = createCall();
const large = Buffer.alloc(3_000_000, "large");
let server: StandIn;
let driver: ObjectDriver;

async function start(options: StandInOptions = {}): Promise<void> {
  server = await StandIn.start(options);
  const section = {
    container: "c",
    create_container: true,
    segment_size_mbytes: 2,
    auth: `${server.origin}/auth/v1.0`,
    user: account.user,
    key: account.key,
  };
  driver = await swiftDriver.open(swiftDriver.schema.parse(section), {} as DriverSurroundings, call);
}

async function stop(): Promise<void> {
  await driver[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
}

beforeEach(() => start());
afterEach(stop);

function bodyOf(bytes: Buffer, isSizeKnown = true): BodySource {
  return { open: async () => Readable.from([bytes]), ...(isSizeKnown ? { sizeBytes: bytes.length } : {}) };
}

function put(bytes: Buffer, key = createPhysicalKey(), isSizeKnown = true) {
  return driver.put(key, bodyOf(bytes, isSizeKnown), call);
}

async function get(key: PhysicalKey) {
  return await buffer(await driver.get(key, undefined, call));
}

async function listed(): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of driver.list(undefined, call)) keys.push(key);
  return keys;
}

describe("what an answer means", () => {
  const meanings: readonly (readonly [number, string])[] = [
    [400, "BACKEND_FAILED"],
    [403, "BACKEND_DENIED"],
    [404, "BACKEND_CONTAINER_MISSING"],
    [408, "BACKEND_FAILED"],
    [409, "BACKEND_FAILED"],
    [413, "BACKEND_FULL"],
    [422, "BACKEND_FAILED"],
    [429, "BACKEND_THROTTLED"],
    [498, "BACKEND_THROTTLED"],
    [500, "BACKEND_FAILED"],
    [502, "BACKEND_FAILED"],
    [503, "BACKEND_THROTTLED"],
    [504, "BACKEND_FAILED"],
    [507, "BACKEND_FULL"],
  ];
  describe.each(meanings)("%i", (status, code) => {
    test.each([
      ["small", Buffer.from("small"), true],
      ["in segments", large, true],
    ])("to a put, %s", async (_, bytes, isSizeKnown) => {
      server.fail({ at: "PUT /v1", fault: { status } });
      const key = createPhysicalKey();
      const error = await failureOf(put(bytes, key, isSizeKnown));
      expect(error.code).toBe(code);
      expect(error.details).toMatchObject({ driver: "swift" });
      expect(server.names("c")).toEqual([]);
      await put(bytes, key, isSizeKnown);
      expect((await get(key)).equals(bytes)).toBe(true);
    });
  });

  test("how long to wait, where the server says so", async () => {
    server.fail({ at: "PUT /v1", fault: { status: 503, headers: { "retry-after": "11" } } });
    expect((await failureOf(put(large))).details.retryAfterMs).toBe(11_000);
  });

  test.each([
    ["put", "PUT", "write", () => put(Buffer.from("x"))],
    ["get", "GET /v1", "read", () => get(createPhysicalKey())],
    ["delete", "DELETE", "write", () => driver.delete(createPhysicalKey(), call)],
    ["list", "GET /v1", "read", () => listed()],
  ])("403 to a %s: which permission for what is missing", async (operation, at, permission, work) => {
    server.fail({ at, fault: { status: 403 } });
    const error = await failureOf(work());
    expect(error).toMatchObject({ code: "BACKEND_DENIED", details: { operation, permission } });
    expect(error.details.resource).toMatch(/^c\//);
    expect(error.hint).toContain(permission);
  });

  test("the server's transaction, but nothing else of its text, is told", async () => {
    const headers = { "x-trans-id": "tx0123-abc" };
    server.fail({ at: "GET /v1", fault: { status: 500, headers, body: `${account.key} and more` } });
    const error = await failureOf(get(createPhysicalKey()));
    expect(error.message).toContain("tx0123-abc");
    expect(error.message).not.toContain(account.key);
  });
});

describe("no secret in an error", () => {
  const faults: readonly Fault["fault"][] = [{ status: 500 }, { status: 401 }, { status: 403 }, "drop"];
  test.each(faults)("%o", async (fault) => {
    server.fail({ at: " /v1", fault, times: 3 });
    const error = await failureOf(put(large));
    const secrets = [account.key, ...server.tokens];
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      const text = `${at.stack} ${JSON.stringify(at)} ${JSON.stringify(Object.entries(at))}`;
      for (const secret of secrets) expect(text).not.toContain(secret);
    }
    for (const secret of secrets) expect(maskSecrets(`x ${secret} y`)).toBe("x ******** y");
  });
});

describe("a put that fails, or only seems to", () => {
  const ways: readonly (readonly [string, Buffer, boolean])[] = [
    ["small", Buffer.from("small"), true],
    ["in one stream", large.subarray(0, 1_500_000), true],
    ["in segments", large, false],
  ];
  const faults: readonly (readonly [string, Omit<Fault, "at">])[] = [
    ["the connection breaks before", { fault: "drop" }],
    ["the connection breaks after it took effect", { fault: "drop", when: "after" }],
    ["500 after it took effect", { fault: { status: 500 }, when: "after" }],
    ["503 after it took effect", { fault: { status: 503 }, when: "after" }],
    ["other bytes arrived than were sent", { fault: "damage" }],
  ];
  describe.each(ways)("%s", (_, bytes, isSizeKnown) => {
    test.each(faults)("%s: nothing is left, and the key is free", async (_name, fault) => {
      for (let skip = 0; skip < 4; skip++) {
        server.fail({ at: "PUT /v1", skip, ...fault });
        const key = createPhysicalKey();
        const result = await put(bytes, key, isSizeKnown).catch((error: unknown) => error);
        server.faults.length = 0;
        if (result instanceof Error) {
          expect(await failureOf(Promise.reject(result))).toMatchObject({ entry: { retry: "later" } });
          expect(server.names("c")).toEqual([]);
          await put(bytes, key, isSizeKnown);
        }
        expect((await get(key)).equals(bytes)).toBe(true);
        await driver.delete(key, call);
        expect(server.names("c")).toEqual([]);
      }
    });
  });

  test("what another has stored under the key stays", async () => {
    const key = createPhysicalKey();
    await put(Buffer.from("another's"), key);
    for (const fault of ["drop", { status: 500 }] as const) {
      server.fail({ at: "PUT /v1", fault });
      expect((await failureOf(put(Buffer.from("ours"), key))).entry.retry).toBe("later");
      expect((await get(key)).toString()).toBe("another's");
    }
  });

  test("where nobody listens, nothing has to be taken back", async () => {
    const lines: string[] = [];
    const watched = createCall({ log: createLogger("warn", (line) => lines.push(line)) });
    await server[Symbol.asyncDispose]();
    const error = await failureOf(driver.put(createPhysicalKey(), bodyOf(Buffer.from("x")), watched));
    expect(error).toMatchObject({ code: "BACKEND_UNREACHABLE", entry: { exitCode: 3 } });
    expect(lines).toEqual([]);
    await start();
  });

  test("segments that can't be taken back are taken by purge", async () => {
    const key = createPhysicalKey();
    server.fail({ at: "multipart-manifest=put", fault: { status: 500 } });
    server.fail({ at: "DELETE", fault: { status: 500 }, times: 99 });
    expect((await failureOf(put(large, key))).code).toBe("BACKEND_FAILED");
    server.faults.length = 0;
    expect(server.names("c").length).toBeGreaterThan(0);
    await driver.purge(key, undefined, call);
    expect(server.names("c")).toEqual([]);
  });

  test("a token that is refused in the middle of segments fails the put once", async () => {
    const key = createPhysicalKey();
    server.fail({ at: "/segments/", skip: 1, fault: { status: 401 } });
    expect(await failureOf(put(large, key))).toMatchObject({ code: "BACKEND_FAILED", entry: { retry: "later" } });
    expect(server.names("c")).toEqual([]);
    await put(large, key);
    expect((await get(key)).equals(large)).toBe(true);
  });
});

describe("a get that fails", () => {
  test.each([
    ["small", Buffer.from("a small body")],
    ["large", large],
  ])("a body that is cut, %s", async (_, bytes) => {
    const { key } = await put(bytes);
    for (const range of [undefined, { first: 1, last: bytes.length }]) {
      server.fail({ at: "GET /v1", fault: "cutBody" });
      const reading = async () => await buffer(await driver.get(key, range, call));
      expect(await failureOf(reading())).toMatchObject({ entry: { retry: "later" } });
    }
    expect((await get(key)).equals(bytes)).toBe(true);
  });

  test("another range than was asked for", async () => {
    const { key } = await put(Buffer.from("0123456789"));
    for (const range of ["bytes 3-5/10", "bytes 2-4/10", "bytes 2-6/10", "bytes 2-5/10", "none"]) {
      server.fail({ at: "GET /v1", fault: { status: 206, headers: { "content-range": range }, body: "234" } });
      const reading = async () => await buffer(await driver.get(key, { first: 2, last: 5 }, call));
      expect((await failureOf(reading())).code).toBe("BACKEND_FAILED");
    }
    server.fail({ at: "GET /v1", fault: { status: 200, body: "0123456789" } });
    expect((await failureOf(driver.get(key, { first: 2, last: 5 }, call))).code).toBe("BACKEND_FAILED");
  });

  test("the container has gone: that, not a missing key", async () => {
    server.containers.clear();
    expect((await failureOf(get(createPhysicalKey()))).code).toBe("BACKEND_CONTAINER_MISSING");
  });
});

describe("listings", () => {
  test("short pages are not the end", async () => {
    await stop();
    await start({ pageMax: 3 });
    const keys = Array.from({ length: 10 }, () => createPhysicalKey());
    for (const key of keys) await put(Buffer.from("x"), key);
    expect(await listed()).toEqual(keys.toSorted());
  });

  test.each([
    ["not JSON", "<html>"],
    ["no listing", '{"a": 1}'],
    ["an entry without sense", '[{"name": 1}]'],
    ["too long", `[${'{"name":"x"},'.repeat(2_000_000)}{}]`],
  ])("an answer that is %s", async (_, body) => {
    server.fail({ at: "GET /v1", fault: { status: 200, body } });
    expect((await failureOf(listed())).code).toBe("BACKEND_FAILED");
  });

  test("one that begins again and again ends with an error", async () => {
    const body = '[{"name":"b"}]';
    server.fail({ at: "GET /v1", fault: { status: 200, body }, times: 99 });
    expect((await failureOf(listed())).code).toBe("BACKEND_FAILED");
  });
});

describe("servers that say less of themselves", () => {
  test.each([
    ["nothing", undefined],
    ["no segments", { swift: { max_file_size: 5 * 1024 ** 3 } }],
  ])("%s: bodies go whole, whatever their size", async (_, information) => {
    await stop();
    await start({ information });
    expect((await driver.capabilities(call)).objectBytesMax).toBe(5 * 1024 ** 3);
    for (const isSizeKnown of [true, false]) {
      const { key } = await put(large, createPhysicalKey(), isSizeKnown);
      expect(server.names("c")).toEqual([key]);
      expect((await get(key)).equals(large)).toBe(true);
      await driver.purge(key, undefined, call);
    }
  });

  test("a body larger than all segments together is refused before it is sent, and while it is", async () => {
    await stop();
    await start({ information: { swift: { max_file_size: 1024 * 1024 }, slo: { max_manifest_segments: 2 } } });
    expect((await driver.capabilities(call)).objectBytesMax).toBe(2 * 1024 * 1024);
    for (const isSizeKnown of [true, false]) {
      expect((await failureOf(put(large, createPhysicalKey(), isSizeKnown))).code).toBe("BACKEND_FULL");
      expect(server.names("c")).toEqual([]);
    }
    expect(server.requests.filter((line) => line.includes("PUT /v1/AUTH_test/c/segments/"))).toHaveLength(2);
  });

  test.each(['{"swift": 1}', "{}", '{"slo": {"max_manifest_segments": "many"}}'])("%s", async (text) => {
    await stop();
    await start({ information: JSON.parse(text) as object });
    expect((await driver.capabilities(call)).objectBytesMax).toBe(5 * 1024 ** 3);
  });
});

test("segments that the server could not delete are no success", async () => {
  const { key } = await put(large);
  const body = JSON.stringify({ "Response Status": "500 Internal Error", Errors: [["/c/x", "500"]] });
  server.fail({ at: "multipart-manifest=delete", fault: { status: 200, body } });
  expect((await failureOf(driver.delete(key, call))).code).toBe("BACKEND_FAILED");
  await driver.delete(key, call);
  expect(server.names("c")).toEqual([]);
});
