import { describe, expect, it } from "vitest";
import { fieldText, imagePath, linesOf, nameText, wholeNumber } from "./text.ts";

describe("linesOf", () => {
  it.each([
    ["", []],
    ["a", ["a"]],
    ["a\nb\n", ["a", "b"]],
    ["\n\na\r\n\r\n", ["", "", "a", ""]],
    ["a\r", ["a"]],
    ["a\rb\n", ["a\rb"]],
  ])("%j", (text, lines) => {
    expect([...linesOf(text)]).toEqual(lines);
  });
});

describe("imagePath", () => {
  it.each([
    ["/usr/bin/x", "usr/bin/x"],
    ["usr/bin/x", "usr/bin/x"],
    ["./a//b/./c/", "a/b/c"],
    ["/a/../b", "b"],
    ["a/..b/...", "a/..b/..."],
    [".hidden", ".hidden"],
    ["/", undefined],
    ["/.", undefined],
    ["", undefined],
    ["../x", undefined],
    ["a/../../x", undefined],
    ["a\0b", undefined],
    [`${"a/".repeat(2048)}b`, undefined],
  ])("%j", (path, result) => {
    expect(imagePath(path)).toBe(result);
  });
});

it("names are one short printable line, fields are safe to print", () => {
  expect(nameText(" a b ")).toBe("a b");
  for (const bad of [undefined, "", "  ", "a\nb", "a\tb", "a\u001bb", "a\0", "\udcff", "x".repeat(513)])
    expect(nameText(bad)).toBeUndefined();
  expect(fieldText(" one\ntwo\u001b[31m\0\udcff ")).toBe("one\ntwo\ufffd[31m\ufffd\ufffd");
  expect(fieldText("x".repeat(10_000))).toHaveLength(4096);
  expect(fieldText(" \n ")).toBeUndefined();
  expect(["7", "007", "-1", "1e3", "", "1234567890123456", undefined].map(wholeNumber)).toEqual([
    7,
    7,
    ...Array(5).fill(undefined),
  ]);
});
