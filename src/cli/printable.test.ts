import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { printable, printableJson } from "./printable.ts";

const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  // Code units at random: lone surrogates, controls, everything.
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
  fc.string({ unit: fc.constantFrom("\u001b", "\\", "\n", "\u009b", "\u202e", "\udc9b", "x", "9", "b", "\u{e0001}") }),
);
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

describe("printable", () => {
  it.each([
    ["usr/lib/café 漢字", "usr/lib/café 漢字"],
    ["red\u001b[31m", "red\\x1b[31m"],
    ["a\nb\r\tc", "a\\nb\\r\\tc"],
    ["bell\u0007 del\u007f", "bell\\x07 del\\x7f"],
    ["csi\u009b31m", "csi\\u{009b}31m"],
    ["byte\udc9b", "byte\\x9b"],
    ["lone\ud800", "lone\\u{d800}"],
    ["gpj.\u202efdp", "gpj.\\u{202e}fdp"],
    ["tag\u{e0041}", "tag\\u{e0041}"],
    ["a\\x2db", "a\\\\x2db"],
  ])("shows %j as %j", (text, shown) => {
    expect(printable(text)).toBe(shown);
  });

  it("leaves nothing that a terminal acts upon", () => {
    fc.assert(fc.property(anyText, (text) => !UNSAFE.test(printable(text))));
  });

  it("shows different texts differently", () => {
    const undo = (shown: string) =>
      shown.replace(/\\(?:x(..)|u\{(.*?)\}|(.))/gu, (_, byte: string, code: string, letter: string) => {
        if (byte !== undefined) {
          const value = Number.parseInt(byte, 16);
          return String.fromCharCode(value < 0x80 ? value : 0xdc00 + value);
        }
        if (code !== undefined) return String.fromCodePoint(Number.parseInt(code, 16));
        return { n: "\n", r: "\r", t: "\t", "\\": "\\" }[letter] ?? "?";
      });
    fc.assert(fc.property(anyText, (text) => undo(printable(text)) === text));
  });
});

describe("printableJson", () => {
  it("keeps the value and leaves nothing that a terminal acts upon", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const json = printableJson(JSON.stringify({ [text]: [text] }));
        expect(UNSAFE.test(json)).toBe(false);
        expect(JSON.parse(json)).toEqual({ [text]: [text] });
      }),
    );
  });
});
