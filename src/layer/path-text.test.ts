import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesToText, decodePathText, textToBytes } from "./path-text.ts";

describe("the text form of names", () => {
  const byte = fc.oneof(
    fc.integer({ min: 0, max: 255 }),
    fc.constantFrom(0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xed, 0xa0, 0xf0, 0x9f, 0x98, 0x80),
  );
  const bytes = fc.array(byte, { maxLength: 60 }).map((list) => Buffer.from(list));

  it("can be turned back into the same bytes (property)", () => {
    fc.assert(
      fc.property(bytes, (buffer) => {
        const text = decodePathText(buffer);
        expect(bytesToText(buffer.toString("latin1"))).toBe(text);
        expect(Buffer.from(textToBytes(text), "latin1")).toEqual(buffer);
      }),
      { numRuns: 2000 },
    );
  });

  it("is the text itself where the bytes are UTF-8 (property)", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(decodePathText(Buffer.from(text))).toBe(text);
      }),
    );
  });

  it("escapes only what is no part of UTF-8, as a strict decoder sees it (property)", () => {
    const isStrict = (buffer: Buffer) => {
      try {
        new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(buffer);
        return true;
      } catch {
        return false;
      }
    };
    fc.assert(
      fc.property(bytes, (buffer) => {
        expect(decodePathText(buffer).isWellFormed()).toBe(isStrict(buffer));
      }),
    );
  });

  it("keeps a byte order mark and what stands around bytes that are not UTF-8", () => {
    expect(decodePathText(Buffer.from("\ufeffé€😀"))).toBe("\ufeffé€😀");
    expect(decodePathText(Buffer.from([0x61, 0xff, 0xc3, 0xa9, 0xc3]))).toBe("a\udcffé\udcc3");
  });
});
