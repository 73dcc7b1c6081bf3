import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { apkCataloger } from "./apk-cataloger.ts";

const alpine = { id: "alpine", version: "3.20.3", like: [] };
const digest = (algorithm: string, text: string) => createHash(algorithm).update(text).digest();
const sha1 = digest("sha1", "one");
const sha256 = digest("sha256", "two");

const record = [
  "C:Q1bQGYW6Y7Mn3GkGS8rL2v5uYJ0hE=",
  "P:lib-dash-r2d2",
  "V:1.2.3_p4-r5",
  "A:x86_64",
  "S:1000",
  "I:4096",
  "T:A library",
  "U:https://example.org/",
  "L:MIT AND BSD-2-Clause",
  "o:dash",
  "m:A Person <a@example.org>",
  "t:1700000000",
  "c:0123",
  "D:so:libc.musl-x86_64.so.1",
  "y:unknown letter",
  "F:",
  "F:etc",
  "M:0:0:0755",
  "F:usr/bin",
  "M:1:2:1777:Q1abc",
  "R:one",
  "a:3:4:4755",
  `Z:Q1${sha1.toString("base64")}`,
  "R:two",
  `Z:Q2${sha256.toString("base64")}`,
  "R:three",
  "F:lib",
  "R:hex",
  `Z:X1${sha1.toString("hex")}`,
  "R:hex2",
  `Z:X2${sha256.toString("hex").toUpperCase()}`,
  "R:old",
  "Z:0123456789abcdef0123456789abcdef",
  "R:bad",
  "Z:Q1AAAA",
  "",
].join("\n");

const simple = (name: string, version: string, more = "") => `P:${name}\nV:${version}\nA:noarch\n${more}\n`;

describe("apk", () => {
  const run = runCataloger(apkCataloger, [{ "lib/apk/db/installed": record, "lib/apk/db/triggers": "x" }], alpine);

  it("asks for the database only", () => {
    expect(run.asked).toEqual([["lib/apk/db/installed"]]);
    expect(apkCataloger.wants).toEqual(["**/lib/apk/db/installed"]);
  });

  it("a package with all of its fields", () => {
    expect(run.packages).toEqual([
      {
        type: "apk",
        name: "lib-dash-r2d2",
        version: "1.2.3_p4-r5",
        upstreamVersion: "1.2.3_p4",
        release: "r5",
        architecture: "x86_64",
        source: { name: "dash" },
        licenses: ["MIT AND BSD-2-Clause"],
        sizeBytes: 4096,
        origin: "A Person <a@example.org>",
        description: "A library",
        homepage: "https://example.org/",
        purl: "pkg:apk/alpine/lib-dash-r2d2@1.2.3_p4-r5?arch=x86_64&distro=alpine-3.20.3&upstream=dash",
        location: "lib/apk/db/installed",
        layer: 0,
        cataloger: "apk",
        owned: [{ layer: 0, ordinal: 0 }],
      },
    ]);
  });

  it("directories and files with modes, owners and digests", () => {
    const file = { mode: 0o644, uid: 0, gid: 0 };
    expect(run.findings[0]?.[0]?.files).toEqual([
      { path: "etc", isDirectory: true, mode: 0o755, uid: 0, gid: 0 },
      { path: "usr/bin", isDirectory: true, mode: 0o1777, uid: 1, gid: 2 },
      { path: "usr/bin/one", mode: 0o4755, uid: 3, gid: 4, digest: `sha1:${sha1.toString("hex")}` },
      { ...file, path: "usr/bin/two", digest: `sha256:${sha256.toString("hex")}` },
      { ...file, path: "usr/bin/three" },
      { path: "lib", isDirectory: true, mode: 0o755, uid: 0, gid: 0 },
      { ...file, path: "lib/hex", digest: `sha1:${sha1.toString("hex")}` },
      { ...file, path: "lib/hex2", digest: `sha256:${sha256.toString("hex")}` },
      { ...file, path: "lib/old", digest: "md5:0123456789abcdef0123456789abcdef" },
      { ...file, path: "lib/bad" },
    ]);
  });

  it("with f:S a Q1 is the beginning of a SHA-256", () => {
    const short = sha256.subarray(0, 20);
    const database = `P:a\nV:1\nf:sS\nF:\nR:x\nZ:Q1${short.toString("base64")}\nR:y\nZ:X1${sha1.toString("hex")}\n\n`;
    const files = runCataloger(apkCataloger, [{ "lib/apk/db/installed": database }]).findings[0]?.[0]?.files;
    expect(files?.map((file) => file.digest)).toEqual([
      `sha256-160:${short.toString("hex")}`,
      `sha1:${sha1.toString("hex")}`,
    ]);
  });

  it("the newest database is the whole truth; one removed or emptied means no packages", () => {
    const layers = [
      { "lib/apk/db/installed": simple("a", "1-r0") + simple("b", "1-r0") },
      { "lib/apk/db/installed": simple("b", "2-r0") },
    ];
    const names = (...more: Parameters<typeof runCataloger>[1]) =>
      runCataloger(apkCataloger, [...layers, ...more], alpine).packages.map(
        (one) => `${one.name} ${one.version} ${one.layer}`,
      );
    expect(names()).toEqual(["b 2-r0 1"]);
    expect(names({ "lib/apk/db/installed": null })).toEqual([]);
    expect(names({ lib: null })).toEqual([]);
    expect(names({ "lib/apk/db/installed": "" })).toEqual([]);
  });

  it("with merged /usr the database is found by its real path; of two, apk opens the one in lib", () => {
    const of = (files: Record<string, string>) =>
      runCataloger(apkCataloger, [files], alpine).packages.map((one) => one.name);
    expect(of({ "usr/lib/apk/db/installed": simple("real", "1") })).toEqual(["real"]);
    expect(
      of({ "usr/lib/apk/db/installed": simple("hidden", "1"), "lib/apk/db/installed": simple("seen", "1") }),
    ).toEqual(["seen"]);
  });

  it("a second root below the first has packages of its own, of no distribution known", () => {
    const run = runCataloger(
      apkCataloger,
      [
        {
          "lib/apk/db/installed": simple("a", "1"),
          "srv/root/usr/lib/apk/db/installed": simple("b", "1", "F:bin\nR:x\n"),
        },
      ],
      alpine,
    );
    expect(run.packages.map((one) => one.purl)).toEqual([
      "pkg:apk/alpine/a@1?arch=noarch&distro=alpine-3.20.3",
      "pkg:apk/b@1?arch=noarch",
    ]);
    expect(run.owned(run.packages[1]).map((file) => file.path)).toEqual(["srv/root/bin", "srv/root/bin/x"]);
  });

  it("broken records and lines cost themselves", () => {
    const database = `V:1\nT:no name\n\n${simple("ok", "1", "nonsense\nF:../..\nR:x\nF:bin\nR:y\n")}P:\u001b[31m\nV:1\n\nP:noversion\n\n\n\nP:last\nV:2`;
    const run = runCataloger(apkCataloger, [{ "lib/apk/db/installed": database }]);
    expect(run.packages.map((one) => one.name)).toEqual(["ok", "last"]);
    expect(run.owned(run.packages[0]).map((file) => file.path)).toEqual(["bin", "bin/y"]);
    const problems = run.findings.flat().filter((finding) => finding.kind === "problem");
    expect(problems.map((finding) => (finding.value as { text: string }).text)).toEqual([
      "a record without a usable name or version was left out (no name)",
      "left out 3 lines or paths of ok",
      "a record without a usable name or version was left out (\ufffd[31m)",
      "a record without a usable name or version was left out (noversion)",
    ]);
  });

  it("a short database that stands for endless paths is cut", () => {
    const long = "d".repeat(4000);
    const database = `P:a\nV:1\nF:${long}\n${"R:x\n".repeat(20_000)}\n`;
    const files = runCataloger(apkCataloger, [{ "lib/apk/db/installed": database }]).findings[0]?.[0]?.files ?? [];
    expect(files.length).toBeGreaterThan(1000);
    expect(files.length).toBeLessThan(10_000);
  });
});
