import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StowageError } from "../errors/index.ts";
import { findDigest, parseDiffId, parseDigest } from "./digest.ts";
import { findFullTag, formatReference, parseReference, registryName } from "./reference.ts";

const hex = "a".repeat(64);

describe("parseDigest", () => {
  it("takes sha256 and sha512 in their exact form", () => {
    expect(parseDigest(`sha256:${hex}`)).toBe(`sha256:${hex}`);
    expect(parseDigest(`sha512:${hex}${hex}`)).toBe(`sha512:${hex}${hex}`);
  });

  it.each([
    "",
    "sha256:",
    `sha256:${hex.slice(1)}`,
    `sha256:${hex}a`,
    `sha256:${hex.toUpperCase()}`,
    `sha512:${hex}`,
    `blake3:${hex}`,
    `md5:${hex.slice(32)}`,
    `sha256:${hex}\n`,
    `sha256:../../${hex.slice(6)}`,
    `sha256:${hex.slice(3)}%2f`,
  ])("refuses %j", (text) => {
    expect(findDigest(text)).toBeUndefined();
    expect(() => parseDigest(text)).toThrow(StowageError);
    expect(() => parseDiffId(text)).toThrow(StowageError);
  });

  it("takes no sha512 as a diffID", () => {
    expect(() => parseDiffId(`sha512:${hex}${hex}`)).toThrow(/diffID/);
  });
});

describe("parseReference", () => {
  it.each([
    ["alpine", "docker.io/alpine:latest", "registry-1.docker.io", "library/alpine"],
    ["alpine:3.20", "docker.io/alpine:3.20", "registry-1.docker.io", "library/alpine"],
    ["docker.io/library/alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "library/alpine"],
    ["index.docker.io/a/b:c", "docker.io/a/b:c", "registry-1.docker.io", "a/b"],
    ["localhost", "docker.io/localhost:latest", "registry-1.docker.io", "library/localhost"],
    ["localhost/x", "localhost/x:latest", "localhost", "x"],
    ["localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000", "x"],
    ["UPPER/x", "UPPER/x:latest", "UPPER", "x"],
    ["ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io", "a/b"],
    ["[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000", "x"],
    ["a__b/c-d.e:T_a.g-1", "docker.io/a__b/c-d.e:T_a.g-1", "registry-1.docker.io", "a__b/c-d.e"],
    [`ghcr.io/a/b@sha256:${hex}`, `ghcr.io/a/b@sha256:${hex}`, "ghcr.io", "a/b"],
    [`ghcr.io/a/b:1@sha256:${hex}`, `ghcr.io/a/b:1@sha256:${hex}`, "ghcr.io", "a/b"],
  ])("%s", (text, full, host, repository) => {
    const reference = parseReference(text);
    expect(formatReference(reference)).toBe(full);
    expect(registryName(reference)).toEqual({ host, repository });
  });

  it.each([
    "",
    ":tag",
    "a:",
    "a@",
    "a@sha256:12",
    "Upper",
    "a/B",
    "a//b",
    "/a",
    "a/",
    "-a",
    "a..b/c/../d",
    "a___b",
    "a b",
    "a:tag:tag",
    `a:${"t".repeat(129)}`,
    "p".repeat(256),
    hex,
    "ho_st.io/x",
    "host.io:70000/x",
    "host.io:0/x",
    "[::1%eth0]/x",
    "user@host.io/x",
    "host.io/x?y",
    "host.io/x#y",
    "a\nb",
  ])("refuses %j with a hint", (text) => {
    try {
      parseReference(text);
    } catch (error) {
      expect((error as StowageError).code).toBe("INPUT_INVALID");
      expect((error as StowageError).hint).toContain("alpine:3.20");
      return;
    }
    expect.unreachable(`${text} was accepted`);
  });

  it("never throws anything else, and what it writes it reads again", () => {
    const part = fc.stringMatching(/^[a-zA-Z0-9:@/._[\]-]{0,40}$/);
    fc.assert(
      fc.property(fc.oneof(part, fc.string()), (text) => {
        try {
          const reference = parseReference(text);
          expect(parseReference(formatReference(reference))).toEqual(reference);
        } catch (error) {
          if (!(error instanceof StowageError)) throw error;
          expect(error.code).toBe("INPUT_INVALID");
        }
      }),
    );
  });
});

describe("findFullTag", () => {
  it("takes away the library that tools write on docker.io, and only there", () => {
    expect(findFullTag("docker.io/library/alpine:3.20")).toBe("docker.io/alpine:3.20");
    expect(findFullTag("alpine:3.20")).toBe("docker.io/alpine:3.20");
    expect(findFullTag("ghcr.io/library/alpine:1")).toBe("ghcr.io/library/alpine:1");
    expect(findFullTag("library/a/b:1")).toBe("docker.io/library/a/b:1");
    expect(findFullTag(`a@sha256:${hex}`)).toBeUndefined();
    expect(findFullTag("not valid")).toBeUndefined();
  });
});
