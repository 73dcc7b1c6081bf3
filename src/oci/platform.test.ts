import { describe, expect, it } from "vitest";
import { formatPlatform, machinePlatform, normalizePlatform, parsePlatform, platformRank } from "./platform.ts";

describe("normal form", () => {
  it.each([
    ["macos/aarch64", "darwin/arm64"],
    ["linux/i386", "linux/386"],
    ["linux/x86_64", "linux/amd64"],
    ["linux/x86-64", "linux/amd64"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armel", "linux/arm/v6"],
    ["linux/arm", "linux/arm/v7"],
    ["linux/arm/6", "linux/arm/v6"],
    ["linux/amd64/v1", "linux/amd64"],
    ["linux/amd64/v3", "linux/amd64/v3"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/arm64/8", "linux/arm64"],
    ["linux/arm64/v8.0", "linux/arm64"],
    ["linux/arm64/v9", "linux/arm64/v9"],
    ["Linux/AMD64", "linux/amd64"],
  ])("%s is %s", (text, normal) => {
    expect(formatPlatform(parsePlatform(text))).toBe(normal);
  });

  it.each(["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64", "linux/amd64/"])(
    "refuses %j",
    (text) => {
      expect(() => parsePlatform(text)).toThrow(/platform/);
    },
  );

  it("is linux on every host", () => {
    expect(machinePlatform("x64")).toEqual({ os: "linux", architecture: "amd64" });
    expect(machinePlatform("arm")).toEqual({ os: "linux", architecture: "arm", variant: "v7" });
  });
});

describe("what a wish accepts, best first", () => {
  const order = (wish: string, offered: readonly string[]) =>
    offered
      .map((text) => ({ text, rank: platformRank(parsePlatform(wish), parsePlatform(text)) }))
      .filter((entry) => entry.rank !== undefined)
      .sort((left, right) => (left.rank ?? 0) - (right.rank ?? 0))
      .map((entry) => entry.text);
  const all = [
    ...[
      "linux/386",
      "linux/amd64",
      "linux/amd64/v2",
      "linux/amd64/v3",
      "linux/amd64/v4",
      "linux/arm/v5",
      "linux/arm/v6",
    ],
    ...["linux/arm/v7", "linux/arm/v8", "linux/arm64", "linux/arm64/v8.1", "linux/arm64/v8.5", "linux/arm64/v8.6"],
    ...["linux/arm64/v9", "linux/arm64/v9.1", "windows/amd64", "linux/s390x"],
  ];

  it.each([
    ["linux/amd64", ["linux/amd64", "linux/386"]],
    ["linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]],
    ["linux/arm", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]],
    ["linux/arm/v6", ["linux/arm/v6", "linux/arm/v5"]],
    ["linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]],
    [
      "linux/arm64/v9",
      ["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.1", "linux/arm64"].concat([
        "linux/arm/v8",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
      ]),
    ],
    ["linux/s390x", ["linux/s390x"]],
    ["linux/386", ["linux/386"]],
    ["linux/riscv64", []],
  ])("%s", (wish, expected) => {
    expect(order(wish, all)).toEqual(expected);
  });

  it("needs the same version of the system where one is wished", () => {
    const windows = (osVersion?: string) =>
      normalizePlatform({ os: "windows", architecture: "amd64", ...(osVersion ? { osVersion } : {}) });
    expect(platformRank(windows("10.0.1"), windows("10.0.2"))).toBeUndefined();
    expect(platformRank(windows(), windows("10.0.2"))).toBe(0);
  });
});
