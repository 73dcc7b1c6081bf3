import { expect, it } from "vitest";
import { parseSize } from "./size.ts";

it.each([
  ["0", 0],
  ["1", 1],
  ["999999999999999", 999_999_999_999_999],
  ["7B", 7],
  ["1kB", 1000],
  ["500MB", 500e6],
  ["2.5GB", 2.5e9],
  ["2.5 gb", 2.5e9],
  ["1TB", 1e12],
  ["1KiB", 1024],
  ["1.5mib", 1.5 * 2 ** 20],
  ["1GiB", 2 ** 30],
  ["3TiB", 3 * 2 ** 40],
  ["0.0000001GB", 100],
  ["1.9", 1],
])("%s", (text, bytes) => {
  expect(parseSize(text, "--to")).toBe(bytes);
});

it.each([
  ...["", " ", "-1", "+1", "1k", "1g", "2 m", "GB", "1.GB", ".5GB", "1e9", "0x10", "1,000", "1_000", "Infinity", "NaN"],
  ...["1 0", "10  GB", "10GBs", "10PB", "9999999999999999", "999999999999999TB", "１GB", "1GB\n", "\u0661GB"],
])("%j is refused", (text) => {
  expect(() => parseSize(text, "--to")).toThrow(
    expect.objectContaining({ code: "INPUT_INVALID", details: expect.objectContaining({ what: "--to", value: text }) }),
  );
});
