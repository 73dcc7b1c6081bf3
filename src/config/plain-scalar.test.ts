import { expect, test } from "vitest";
import { resolvePlainScalar } from "./plain-scalar.ts";

test.each([
  ["", null],
  ["~", null],
  ["Null", null],
  ["nUll", "nUll"],
  ["yes", true],
  ["On", true],
  ["off", false],
  ["y", "y"],
  ["0", 0],
  ["-12", -12],
  ["+1_000", 1000],
  ["0750", 488],
  ["089", "089"],
  ["0o17", "0o17"],
  ["0x1F", 31],
  ["0b101", 5],
  ["1.5", 1.5],
  [".5", 0.5],
  ["1.", 1],
  ["1e5", "1e5"],
  ["1.0e+5", 100_000],
  ["-.inf", Number.NEGATIVE_INFINITY],
  ["12:30", "12:30"],
  ["2026-11-25", "2026-11-25"],
  ["9007199254740993", "9007199254740993"],
  ["12345678901234567890", "12345678901234567890"],
  ["_1", "_1"],
  ["-", "-"],
])("%s", (text, value) => {
  expect(resolvePlainScalar(text)).toBe(value);
});
