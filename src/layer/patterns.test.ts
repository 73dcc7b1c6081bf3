import { describe, expect, test } from "vitest";
import { parsePathText } from "./path.ts";
import { PathMatcher } from "./patterns.ts";

describe("PathMatcher", () => {
  const globs = [
    "etc/os-release",
    "var/lib/db/*",
    "var/lib/db/*/status",
    "**/*.egg-info",
    "**/node_modules/*/package.json",
    "*",
    "srv/größe/*",
    "**/x*",
  ];
  const matcher = new PathMatcher(globs.map((glob) => [glob, glob] as const));

  test.each([
    ["etc/os-release", ["etc/os-release"]],
    ["opt/etc/os-release", []],
    ["var/lib/db/a", ["var/lib/db/*"]],
    ["var/lib/db/a/status", ["var/lib/db/*/status"]],
    ["var/lib/db/a/b", []],
    ["var/lib/db", []],
    ["var/lib/dbx", []],
    ["usr/var/lib/db/a", []],
    ["a.egg-info", ["*", "**/*.egg-info"]],
    ["usr/lib/a.egg-info", ["**/*.egg-info"]],
    ["node_modules/a/package.json", ["**/node_modules/*/package.json"]],
    ["srv/größe/a", ["srv/größe/*"]],
    ["srv/groesse/a", []],
    ["usr/bin/xz", ["**/x*"]],
    ["xz", ["*", "**/x*"]],
  ])("%s", (path, expected) => {
    expect([...matcher.match(parsePathText(path))].sort()).toEqual([...expected].sort());
  });
});
