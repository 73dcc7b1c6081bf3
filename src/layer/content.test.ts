import { createHash, randomBytes } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ContentDigester } from "./content.ts";
import { Md5Lanes } from "./md5-lanes.ts";

const sizes = [0, 1, 100, 64 * 1024, 0, 1024 * 1024, 1024 * 1024 + 1, 3_000_000, 7];

/** Files of these sizes, each in pieces of `pieceBytes`; their digests as they come out. */
function digested(contents: readonly Buffer[], pieceBytes: number): readonly string[] {
  using digester = new ContentDigester();
  const digests: string[] = [];
  const gathered: number[] = [];
  const settle = () => {
    for (const each of digester.settle()) digests[gathered.shift() as number] = each;
  };
  for (const [index, content] of contents.entries()) {
    if (!digester.hasRoomFor(content.length)) settle();
    digester.begin(content.length);
    for (let at = 0; at < content.length; at += pieceBytes) digester.update(content.subarray(at, at + pieceBytes));
    const known = digester.end();
    if (known === undefined) gathered.push(index);
    else digests[index] = known;
  }
  settle();
  expect(gathered).toEqual([]);
  return digests;
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe("the three digests of files", () => {
  const contents = [...sizes, ...sizes].map((size) => randomBytes(size));
  const expected = contents.map((content) =>
    ["md5", "sha1", "sha256"].map((algorithm) => createHash(algorithm).update(content).digest("binary")).join(""),
  );

  test.each([1 << 20, 65_521])("in pieces of %i bytes", (pieceBytes) => {
    expect(digested(contents, pieceBytes)).toEqual(expected);
  });

  test("on a processor that can't digest several at once", () => {
    vi.spyOn(Md5Lanes, "lease").mockReturnValue(undefined);
    expect(digested(contents, 1 << 20)).toEqual(expected);
  });

  test("no file gets the digest of another: what is not complete can't be settled", () => {
    using digester = new ContentDigester();
    digester.begin(10);
    expect(() => digester.settle()).toThrow(RangeError);
  });

  test("a file that ends before its content is refused", () => {
    using digester = new ContentDigester();
    digester.begin(10);
    digester.update(Buffer.alloc(9));
    expect(() => digester.end()).toThrow(RangeError);
  });
});
