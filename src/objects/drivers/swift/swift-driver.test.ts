import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { openContainer, parseServer, type SwiftUnderTest } from "../../../../test/swift/container.ts";
import { account, StandIn } from "../../../../test/swift/stand-in.ts";
import { createCall } from "../../../runtime/index.ts";
import type { PhysicalKey, StoredBlob } from "../../driver.ts";
import { createPhysicalKey } from "../../physical-key.ts";

async function openStandIn(options: { prefix?: string; segmentBytes?: number }): Promise<SwiftUnderTest> {
  const server = await StandIn.start();
  const { user, key } = account;
  const container = await openContainer({ auth: `${server.origin}/auth/v1.0`, user, key }, options);
  return Object.assign(container, {
    async [Symbol.asyncDispose]() {
      await container.driver[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  });
}

// Everywhere: a loopback stand-in, which is no Swift and proves nothing of one.
describeDriver("the swift driver on a stand-in for Swift", () =>
  openStandIn({ segmentBytes: 2_000_000, prefix: "é#?%/" }),
);
describeSwift("a stand-in for Swift", openStandIn);

const given = process.env.STOWAGE_TEST_SWIFT;
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("swift");

if (given !== undefined) {
  const server = parseServer(given);
  describeSwift("a real Swift", (options) => openContainer(server, options));
  describeDriver("the swift driver on a real Swift", () => openContainer(server, {}));
  describeDriver("the swift driver on a real Swift, in segments", () =>
    openContainer(server, { segmentBytes: 1024 * 1024, prefix: "anchore/é#?%/" }),
  );
} else if (isRequired) {
  test("the swift driver on a real Swift", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names swift, but STOWAGE_TEST_SWIFT is not set");
  });
} else {
  test.skip('the swift driver on a real Swift: SKIPPED, set STOWAGE_TEST_SWIFT to {"auth": URL, "user": …, "key": …} of one with static large objects', () => {});
}

/** What only Swift has: a guard against overwriting that racing puts pass, segments, names of others beside ours. */
function describeSwift(
  where: string,
  open: (options: { prefix?: string; segmentBytes?: number }) => Promise<SwiftUnderTest>,
): void {
  describe(`what Swift does, on ${where}`, () => {
    const segmentBytes = 1024 * 1024 + 100;
    const call = createCall();
    let backend: SwiftUnderTest;
    beforeAll(async () => {
      backend = await open({ prefix: "a b/", segmentBytes });
    });
    afterEach(async () => {
      for (const name of await backend.remains()) await backend.remove(name);
    });
    afterAll(() => backend?.[Symbol.asyncDispose]());

    const put = (key: PhysicalKey, bytes: Buffer, isSizeKnown = true) =>
      backend.driver.put(
        key,
        { open: async () => Readable.from([bytes]), ...(isSizeKnown ? { sizeBytes: bytes.length } : {}) },
        call,
      );
    const get = async (key: PhysicalKey) => buffer(await backend.driver.get(key, undefined, call));
    const sizes = [
      ["small", 100, true],
      ["in one request", segmentBytes, true],
      ["of unknown size", segmentBytes - 50, false],
      ["in segments", segmentBytes * 3 + 1, true],
    ] as const;

    test.each(sizes)("a blob %s: where it lies, and what deletion leaves", async (kind, sizeBytes, isSizeKnown) => {
      const key = createPhysicalKey();
      const bytes = randomBytes(sizeBytes);
      expect(await put(key, bytes, isSizeKnown)).toEqual({ key, sizeBytes });
      const segments = { small: 0, "in one request": 0, "of unknown size": 1, "in segments": 4 }[kind];
      const names = await backend.remains();
      expect(names).toHaveLength(1 + segments);
      for (const name of names) expect(name).toMatch(name === `a b/${key}` ? /./ : new RegExp(`^a b/segments/${key}/`));
      const listed: StoredBlob[] = [];
      for await (const blob of backend.driver.list(undefined, call)) listed.push(blob);
      expect(listed).toEqual([{ key, sizeBytes }]);
      expect((await get(key)).equals(bytes)).toBe(true);
      await backend.driver.delete(key, call);
      expect(await backend.remains()).toEqual([]);
    });

    test("a blob that is there is never overwritten by a later put, whole or in segments", async () => {
      for (const [, sizeBytes, isSizeKnown] of sizes) {
        const key = createPhysicalKey();
        const bytes = randomBytes(sizeBytes);
        await put(key, bytes, isSizeKnown);
        const before = await backend.remains();
        for (const [, otherBytes, isOtherKnown] of sizes) {
          const error = await failureOf(put(key, randomBytes(otherBytes), isOtherKnown));
          expect(error).toMatchObject({ code: "BACKEND_KEY_EXISTS", details: { key } });
        }
        expect((await get(key)).equals(bytes)).toBe(true);
        expect(await backend.remains()).toEqual(before);
      }
    });

    test("of puts that race, one's bytes are there, whole", async () => {
      for (const [, sizeBytes, isSizeKnown] of sizes) {
        const key = createPhysicalKey();
        const bodies = Array.from({ length: 4 }, () => randomBytes(sizeBytes));
        const results = await Promise.allSettled(bodies.map((bytes) => put(key, bytes, isSizeKnown)));
        const found = await get(key);
        expect(results.some(({ status }, at) => status === "fulfilled" && bodies[at]?.equals(found))).toBe(true);
        // Segments of one that was beaten after it had ended are found by purge only.
        await backend.driver.purge(key, undefined, call);
        expect(await backend.remains()).toEqual([]);
      }
    });

    test("a deletion undoes a put that began before it and ends after it", async () => {
      await using whole = await open({});
      const key = createPhysicalKey();
      const piece = randomBytes(1_000_000);
      const pieces = 24;
      const body = async function* () {
        // More than sockets hold: the server has seen the head of the request when the last piece is asked for.
        for (let at = 1; at < pieces; at++) yield piece;
        await whole.driver.delete(key, call);
        yield piece;
      };
      const source = {
        open: async () => Readable.from(body(), { highWaterMark: 1 }),
        sizeBytes: pieces * piece.length,
      };
      await Promise.allSettled([whole.driver.put(key, source, call)]);
      expect((await failureOf(whole.driver.get(key, undefined, call))).code).toBe("BACKEND_KEY_MISSING");
      expect(await whole.remains()).toEqual([]);
    });

    test("purge takes segments of a put that never ended; nothing else sees them", async () => {
      const key = createPhysicalKey();
      const other = createPhysicalKey();
      await put(other, Buffer.from("other"));
      for (const at of ["0", "1"]) await backend.store(`a b/segments/${key}/token/${at}`, Buffer.from("part"));
      await backend.store(`a b/segments/${other}/token/0`, Buffer.from("part"));
      expect((await failureOf(get(key))).code).toBe("BACKEND_KEY_MISSING");
      await backend.driver.purge(key, undefined, call);
      expect(await backend.remains()).toEqual([`a b/${other}`, `a b/segments/${other}/token/0`]);
    });

    test("a blob that has lost a segment is missing, and can be deleted", async () => {
      const key = createPhysicalKey();
      await put(key, randomBytes(segmentBytes * 2));
      const [, segment] = await backend.remains();
      await backend.remove(segment ?? "");
      const reading = get(key);
      expect(["BACKEND_KEY_MISSING", "BACKEND_FAILED"]).toContain((await failureOf(reading)).code);
      await backend.driver.delete(key, call);
      expect(await backend.remains()).toEqual([]);
    });

    test("names of others are neither listed nor touched", async () => {
      const key = createPhysicalKey();
      const foreign = [
        "README",
        `a b/${key.slice(1)}`,
        `a b/${key}0`,
        `a b/${key}/x`,
        `a b/${key.toUpperCase()}`,
        "a b/ü",
        key,
      ];
      for (const name of foreign) await backend.store(name, Buffer.from("foreign"));
      const entries: StoredBlob[] = [];
      for await (const blob of backend.driver.list(undefined, call)) entries.push(blob);
      expect(entries).toEqual([]);
      await put(key, Buffer.from("ours"));
      await backend.driver.purge(key, undefined, call);
      expect((await backend.remains()).toSorted()).toEqual(foreign.toSorted());
    });

    test("what the server says of its limits", async () => {
      expect(await backend.driver.capabilities(call)).toMatchObject({
        exclusivePut: false,
        serverDigest: false,
        isShared: true,
        // The larger of what goes without segments (Swift's own default is 2 bytes more than 5 GiB) and with them.
        objectBytesMax: expect.toSatisfy((bytes: number) => bytes === 5 * 1024 ** 3 || bytes === 5 * 1024 ** 3 + 2),
      });
    });
  });
}
