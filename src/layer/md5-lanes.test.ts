import { hash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { blockBytes, lanes as laneCount } from "./md5-kernel.ts";
import { Md5Lanes } from "./md5-lanes.ts";

function leased(): Md5Lanes {
  const lanes = Md5Lanes.lease();
  if (lanes === undefined) throw new Error("this processor has no vectors");
  return lanes;
}

function digestsOf(lanes: Md5Lanes, messages: readonly Uint8Array[]): readonly string[] {
  for (const message of messages) lanes.add(message.length)?.set(message);
  const digests = lanes.digest();
  expect(digests).toHaveLength(16 * messages.length);
  return messages.map((_, index) => digests.toString("hex", 16 * index, 16 * (index + 1)));
}

const expected = (messages: readonly Uint8Array[]) => messages.map((message) => hash("md5", message, "hex"));

describe("MD5 of several messages at once", () => {
  test("is that of OpenSSL, whatever the lengths are", () => {
    using lanes = leased();
    const message = fc.oneof(
      fc.uint8Array({ maxLength: 3 * blockBytes }),
      fc.uint8Array({ minLength: 0, maxLength: 5000, size: "max" }),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 5 * laneCount }), (messages) => {
        expect(digestsOf(lanes, messages)).toEqual(expected(messages));
      }),
    );
  });

  test.each([0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 1024 * 1024])("of messages of %i bytes, in each lane", (bytes) => {
    using lanes = leased();
    const messages = Array.from({ length: bytes > 1000 ? 3 : laneCount + 1 }, (_, index) => Buffer.alloc(bytes, index));
    expect(digestsOf(lanes, messages)).toEqual(expected(messages));
  });

  test("the suite of RFC 1321", () => {
    using lanes = leased();
    const texts = ["", "a", "abc", "message digest", "abcdefghijklmnopqrstuvwxyz"];
    expect(
      digestsOf(
        lanes,
        texts.map((text) => Buffer.from(text)),
      ),
    ).toEqual([
      "d41d8cd98f00b204e9800998ecf8427e",
      "0cc175b9c0f1b6a831c399e269772661",
      "900150983cd24fb0d6963f7d28e17f72",
      "f96b697d7cb7938d525a2f31aaf161d0",
      "c3fcd3d76192e4007dfb496cca67e13b",
    ]);
  });

  test("has no room for more than its memory, and again once they are digested", () => {
    using lanes = leased();
    const bytes = 1024 * 1024;
    let added = 0;
    while (lanes.add(bytes) !== undefined) added++;
    expect(added).toBe(3);
    expect(lanes.hasRoomFor(bytes)).toBe(false);
    lanes.digest();
    expect(lanes.hasRoomFor(bytes)).toBe(true);
  });

  test("what was left behind by one who gave up is not seen by the next", () => {
    {
      using lanes = leased();
      lanes.add(100)?.fill(1);
    }
    using lanes = leased();
    const messages = [Buffer.from("abc")];
    expect(digestsOf(lanes, messages)).toEqual(expected(messages));
  });

  test("two at once don't share anything", () => {
    using one = leased();
    using other = leased();
    const [first, second] = [Buffer.from("first"), Buffer.from("second")];
    one.add(first.length)?.set(first);
    other.add(second.length)?.set(second);
    expect(one.digest()).toEqual(hash("md5", first, "buffer"));
    expect(other.digest()).toEqual(hash("md5", second, "buffer"));
  });

  test("is not to be had where it is wrong", async () => {
    vi.resetModules();
    vi.doMock("./md5-kernel.ts", async (original) => {
      const kernel = await original<typeof import("./md5-kernel.ts")>();
      class Wrong extends kernel.Md5Kernel {
        override take(lane: number, target: Uint32Array, at: number): void {
          super.take(lane, target, at);
          if (lane === laneCount - 1) target[at] = 0;
        }
      }
      return { ...kernel, Md5Kernel: Wrong };
    });
    try {
      const { Md5Lanes: Wrong } = await import("./md5-lanes.ts");
      expect(Wrong.lease()).toBeUndefined();
    } finally {
      vi.doUnmock("./md5-kernel.ts");
    }
  });

  test("is not to be had where there is no WebAssembly", async () => {
    vi.resetModules();
    vi.stubGlobal("WebAssembly", undefined);
    try {
      const { Md5Lanes: Stranded } = await import("./md5-lanes.ts");
      expect(Stranded.lease()).toBeUndefined();
    } finally {
      vi.unstubAllGlobals();
    }
  });
});
