import { describe, expect, it } from "vitest";
import { formatBytes, formatDuration, formatPackageCounts, formatTime, shortDigest } from "./format.ts";

describe("formatBytes", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 kB"],
    [9994, "9.99 kB"],
    [9995, "10.0 kB"],
    [99_949, "99.9 kB"],
    [99_950, "100 kB"],
    [999_499, "999 kB"],
    [999_500, "1.00 MB"],
    [478_000_000, "478 MB"],
    [2 ** 40, "1.10 TB"],
    [Number.MAX_SAFE_INTEGER, "9.01 PB"],
  ])("%d is %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe("formatDuration", () => {
  it.each([
    [0, "0 s"],
    [0.4, "0 ms"],
    [85.4, "85 ms"],
    [999.6, "1.0 s"],
    [2000, "2 s"],
    [2440, "2.4 s"],
    [59_960, "1 min 00 s"],
    [185_000, "3 min 05 s"],
    [7_800_000, "2 h 10 min"],
  ])("%d ms is %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

it("shortens digests whatever their algorithm", () => {
  expect(shortDigest(`sha256:${"0123456789abcdef".repeat(4)}`)).toBe("sha256:0123456789ab");
  expect(shortDigest(`sha512:${"f".repeat(128)}`)).toBe("sha512:ffffffffffff");
});

it("shows times in UTC and packages by type", () => {
  expect(formatTime(new Date("2026-11-24T21:10:27.123Z"))).toBe("2026-11-24 21:10:27Z");
  expect(formatPackageCounts({ dpkg: 88, npm: 1234 })).toBe("dpkg 88, npm 1,234");
  expect(formatPackageCounts({})).toBe("-");
});
