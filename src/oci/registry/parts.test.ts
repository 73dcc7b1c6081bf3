import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { failureOf } from "../../../test/conformance/failure.ts";
import { createCall, silentProgress } from "../../runtime/index.ts";
import { classifyAddress, isLoopbackHost, mayLeadTo } from "./addresses.ts";
import { isSameSite } from "./authorizer.ts";
import { findChallenge } from "./challenge.ts";
import { findCredentials } from "./credentials.ts";
import { parseRetryAfter } from "./retry.ts";

describe("classifyAddress", () => {
  it.each([
    ["8.8.8.8", "public"],
    ["2606:4700::1", "public"],
    ["127.0.0.1", "loopback"],
    ["127.255.0.9", "loopback"],
    ["0.0.0.0", "loopback"],
    ["::1", "loopback"],
    ["::", "loopback"],
    ["::ffff:127.0.0.1", "loopback"],
    ["::ffff:7f00:1", "loopback"],
    ["64:ff9b::7f00:1", "loopback"],
    ["2002:7f00:1::", "loopback"],
    ["::127.0.0.1", "loopback"],
    ["169.254.169.254", "linkLocal"],
    ["fe80::1", "linkLocal"],
    ["fe80::1%eth0", "linkLocal"],
    ["::ffff:169.254.169.254", "linkLocal"],
    ["64:ff9b::a9fe:a9fe", "linkLocal"],
    ["10.1.2.3", "private"],
    ["172.16.0.1", "private"],
    ["172.32.0.1", "public"],
    ["192.168.1.1", "private"],
    ["100.64.0.1", "private"],
    ["fd00::1", "private"],
    ["224.0.0.1", "private"],
    ["255.255.255.255", "private"],
    ["::ffff:8.8.8.8", "public"],
    ["2002:808:808::", "public"],
    ["[::1]", "loopback"],
    ["not an address", "linkLocal"],
  ])("%s is %s", (address, expected) => {
    expect(classifyAddress(address)).toBe(expected);
  });

  it("classifies whatever address there is", () => {
    fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => void classifyAddress(address)));
  });

  it("lets nothing lead nearer than the registry is", () => {
    const classes = ["public", "private", "loopback", "linkLocal"] as const;
    const allowed = classes.map((from) => classes.filter((to) => mayLeadTo(from, to)));
    expect(allowed).toEqual([
      ["public"],
      ["public", "private"],
      ["public", "private", "loopback"],
      ["public", "linkLocal"],
    ]);
  });

  it("knows the names of this machine", () => {
    const own = ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "[::1]"];
    const others = ["localhost.example.com", "notlocalhost", "10.0.0.1", "example.com"];
    expect(own.filter(isLoopbackHost)).toEqual(own);
    expect(others.filter(isLoopbackHost)).toEqual([]);
  });
});

describe("findChallenge", () => {
  it.each([
    [
      'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
      "https://a/t",
      "s",
      "repository:x:pull,push",
    ],
    ['bearer scope="b" , SERVICE=s , Realm="https://a/t"', "https://a/t", "s", "b"],
    ['Bearer realm="https://a/\\"t"', 'https://a/"t', undefined, undefined],
    ['Digest realm="no", Bearer realm="https://a/t"', "https://a/t", undefined, undefined],
    ['Bearer service="no realm", Bearer realm="https://a/t"', "https://a/t", undefined, undefined],
  ])("%s", (header, realm, service, scope) => {
    expect(findChallenge(header)).toEqual({ scheme: "bearer", realm, service, scope });
    expect(findChallenge(["Negotiate", header])).toEqual({ scheme: "bearer", realm, service, scope });
  });

  it("takes what comes first", () => {
    expect(findChallenge('Basic realm="x", Bearer realm="https://a/t"')).toEqual({ scheme: "basic" });
    expect(findChallenge(undefined)).toBeUndefined();
    expect(findChallenge("Bearer")).toBeUndefined();
    expect(findChallenge('Bearer realm="unfinished')?.scheme).not.toBe("basic");
  });

  it("takes any text in linear time, and throws nothing", () => {
    fc.assert(fc.property(fc.string(), (text) => void findChallenge(text)));
    for (const piece of ["a", " ", ",", '"', "\\", "a=", 'a="', "a,", "a =", '\\"']) {
      findChallenge(`Bearer ${piece.repeat(1_000_000)}`);
    }
  });
});

describe("isSameSite", () => {
  it.each([
    ["https://auth.docker.io/token", "https://registry-1.docker.io", true],
    ["https://ghcr.io/token", "https://ghcr.io", true],
    ["https://gitlab.com/jwt/auth", "https://registry.gitlab.com", true],
    ["https://auth.example.com:5001/t", "https://registry.example.com:5000", true],
    ["https://registry.example.com:5001/t", "https://registry.example.com:5000", true],
    ["https://evil.com/docker.io", "https://registry-1.docker.io", false],
    ["https://docker.io.evil.com/", "https://registry-1.docker.io", false],
    ["https://evildocker.io/", "https://registry-1.docker.io", false],
    ["https://evil.co.uk/t", "https://registry.co.uk", false],
    ["https://evil.io/", "https://ghcr.io", false],
    ["http://127.0.0.1:5001/t", "http://127.0.0.1:5000", false],
    ["http://localhost:5001/t", "http://localhost:5000", false],
    ["http://localhost:5000/t", "http://localhost:5000", true],
    ["http://10.0.0.1/t", "http://10.0.0.2", false],
    ["http://[::1]:1/", "http://[::1]:2", false],
    ["http://b/t", "http://a", false],
  ])("%s for %s: %s", (realm, registry, expected) => {
    expect(isSameSite(new URL(realm), new URL(registry))).toBe(expected);
  });
});

describe("parseRetryAfter", () => {
  it("reads seconds and dates", () => {
    const now = new Date("2026-01-01T00:00:00Z");
    expect(parseRetryAfter("3", now)).toBe(3000);
    expect(parseRetryAfter("Thu, 01 Jan 2026 00:00:05 GMT", now)).toBe(5000);
    expect(parseRetryAfter("Thu, 01 Jan 2020 00:00:05 GMT", now)).toBe(0);
    expect(parseRetryAfter("soon", now)).toBeUndefined();
    expect(parseRetryAfter(undefined, now)).toBeUndefined();
  });
});

describe("findCredentials", () => {
  const root = mkdtempSync(join(tmpdir(), "stowage-test-"));
  afterAll(() => rmSync(root, { recursive: true }));
  let count = 0;

  const auth = (user: string) => ({ auth: Buffer.from(`${user}:secret`).toString("base64").replace(/=+$/, "") });

  /** Who we are to `host`, given these files below a home directory. */
  async function userOf(
    host: string,
    files: Readonly<Record<string, unknown>>,
    repository = "team/app",
    more: { dockerAuthConfig?: string; dockerConfigDirectory?: string } = {},
  ): Promise<string | undefined> {
    const home = join(root, String(++count));
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(home, path)), { recursive: true });
      writeFileSync(join(home, path), typeof content === "string" ? content : JSON.stringify(content));
    }
    const environment = {
      home,
      dockerConfigDirectory: more.dockerConfigDirectory,
      dockerAuthConfig: more.dockerAuthConfig,
      registryAuthFile: join(home, "registry-auth.json"),
      runtimeDirectory: join(home, "run"),
      path: undefined,
    };
    const found = await findCredentials(host, repository, environment, silentProgress, createCall());
    if (found === undefined) return undefined;
    return found.kind === "basic"
      ? `${found.username}:${found.password.reveal()}`
      : `${found.kind}:${found.token.reveal()}`;
  }
  const docker = (auths: unknown) => ({ ".docker/config.json": { auths } });
  const podman = (auths: unknown) => ({ ".config/containers/auth.json": { auths } });

  it("reads each form of an entry", async () => {
    expect(await userOf("a.io", docker({ "a.io": auth("u") }))).toBe("u:secret");
    expect(await userOf("a.io", docker({ "a.io": { username: "u", password: "p:q" } }))).toBe("u:p:q");
    expect(await userOf("a.io", docker({ "a.io": { identitytoken: "tttt" } }))).toBe("identity:tttt");
    expect(await userOf("a.io", docker({ "a.io": { registrytoken: "rrrr" } }))).toBe("bearer:rrrr");
    expect(await userOf("a.io", docker({ "a.io": {} }))).toBeUndefined();
    expect(await userOf("a.io", docker(null))).toBeUndefined();
    expect(await userOf("a.io", { ".docker/config.json": "" })).toBeUndefined();
    expect(await userOf("a.io", {})).toBeUndefined();
  });

  it("knows docker.io under its old names", async () => {
    for (const key of ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]) {
      expect(await userOf("registry-1.docker.io", docker({ [key]: auth("u") }))).toBe("u:secret");
    }
    expect(await userOf("ghcr.io", docker({ "https://index.docker.io/v1/": auth("u") }))).toBeUndefined();
  });

  it("prefers the exact key, then one with a scheme or path, and never another host's", async () => {
    const auths = {
      "https://a.io/v2/": auth("loose"),
      "a.io": auth("exact"),
      "b.a.io": auth("no"),
      "a.io.evil.com": auth("no"),
    };
    expect(await userOf("a.io", docker(auths))).toBe("exact:secret");
    expect(await userOf("a.io", docker({ "https://a.io/v2/": auth("loose") }))).toBe("loose:secret");
    expect(await userOf("a.io:5000", docker(auths))).toBeUndefined();
    expect(await userOf("__proto__", docker({}))).toBeUndefined();
  });

  it("takes the longest fitting key of a containers file", async () => {
    const auths = {
      "a.io": auth("host"),
      "a.io/team": auth("team"),
      "a.io/team/app": auth("app"),
      "a.io/tea": auth("no"),
    };
    expect(await userOf("a.io", podman(auths))).toBe("app:secret");
    expect(await userOf("a.io", podman(auths), "team/other")).toBe("team:secret");
    expect(await userOf("a.io", podman(auths), "else")).toBe("host:secret");
    expect(await userOf("a.io", podman({ "a.io/team": auth("team") }), "else")).toBeUndefined();
  });

  it("searches in order: variable, Docker's file, the others", async () => {
    const files = {
      ".docker/config.json": { auths: { "a.io": auth("docker") } },
      "registry-auth.json": { auths: { "a.io": auth("file"), "b.io": auth("file") } },
      "run/containers/auth.json": { auths: { "b.io": auth("run"), "c.io": auth("run") } },
      ".config/containers/auth.json": { auths: { "c.io": auth("home"), "d.io": auth("home") } },
    };
    const dockerAuthConfig = JSON.stringify({ auths: { "a.io": auth("variable") } });
    expect(await userOf("a.io", files, "x", { dockerAuthConfig })).toBe("variable:secret");
    expect(await userOf("a.io", files)).toBe("docker:secret");
    expect(await userOf("a.io", files, "x", { dockerConfigDirectory: "/nonexistent" })).toBe("file:secret");
    expect(await userOf("b.io", files)).toBe("file:secret");
    expect(await userOf("c.io", files)).toBe("run:secret");
    expect(await userOf("d.io", files)).toBe("home:secret");
  });

  it.each([
    ["no JSON", "{ secret"],
    ["another shape", '{"auths":[1]}'],
    ["auth without a user", JSON.stringify({ auths: { "a.io": { auth: "c2VjcmV0" } } })],
  ])("names a file that holds %s, and quotes nothing of it", async (_, content) => {
    const error = await failureOf(userOf("a.io", { ".docker/config.json": content }));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.details.file).toMatch(/config\.json$/);
    expect(`${error.message} ${String(error.cause)}`).not.toMatch(/secret|c2VjcmV0/);
  });

  it("does not wait for a fifo", async () => {
    const directory = join(root, "fifo");
    mkdirSync(directory);
    execFileSync("mkfifo", [join(directory, "config.json")]);
    const error = await failureOf(userOf("a.io", {}, "x", { dockerConfigDirectory: directory }));
    expect(error.code).toBe("CONFIG_INVALID");
  });
});
