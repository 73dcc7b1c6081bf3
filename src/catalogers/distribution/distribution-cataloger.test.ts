import { expect, it } from "vitest";
import { runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { distributionCataloger } from "./distribution-cataloger.ts";

const distributionOf = (...layers: Parameters<typeof runCataloger>[1]) =>
  runCataloger(distributionCataloger, layers).distribution;

it("asks for the files that say it, and no others", () => {
  const files = {
    "etc/os-release": "",
    "usr/lib/os-release": "",
    "etc/system-release-cpe": "",
    "etc/redhat-release": "",
    "etc/alpine-release": "",
    "etc/debian_version": "",
    "bin/busybox": "",
    "usr/bin/busybox": "",
  };
  const run = runCataloger(distributionCataloger, [{ ...files, "srv/etc/os-release": "ID=x", "etc/issue": "x" }]);
  expect(run.asked).toEqual([Object.keys(files).sort()]);
  expect(run.findings.flat().map((finding) => [finding.kind, finding.path])).toContainEqual(["busybox", "bin/busybox"]);
});

it.each([
  [
    "quotes, comments, blanks",
    '# c\n\nNAME="x"\n ID = y\nID="debian"\nVERSION_ID=\'12\'\nID_LIKE="a  b"\nPRETTY_NAME="A \\"b\\" \\$c"\n',
    { id: "debian", version: "12", like: ["a", "b"], prettyName: 'A "b" $c' },
  ],
  [
    "equals signs in a value, CRLF, the last of two wins",
    "ID=one\r\nID=Two\r\nVERSION_ID=a=b\r\n",
    { id: "two", version: "a=b", like: [] },
  ],
  [
    "a comment after a value, quotes in the middle",
    "ID=fed'o'\"ra\" # x\nVERSION_ID=38\n",
    { id: "fedora", version: "38", like: [] },
  ],
  ["no VERSION_ID: BUILD_ID", "ID=arch\nBUILD_ID=rolling\n", { id: "arch", version: "rolling", like: [] }],
  ["no version at all", "ID=void", { id: "void", version: "", like: [] }],
])("os-release: %s", (_, text, distribution) => {
  expect(distributionOf({ "etc/os-release": text })).toEqual(distribution);
  expect(distributionOf({ "usr/lib/os-release": text })).toEqual(distribution);
});

it.each([
  ["CentOS Linux release 7.9.2009 (Core)", "centos", "7.9.2009"],
  ["Fedora release 38 (Thirty Eight)", "fedora", "38"],
  ["Red Hat Enterprise Linux release 10.1 (Coughlan)", "rhel", "10.1"],
  ["Rocky Linux release 9.2 (Blue Onyx)", "rocky", "9.2"],
  ["AlmaLinux 8 release", "almalinux", ""],
])("redhat-release %s", (text, id, version) => {
  expect(distributionOf({ "etc/redhat-release": `${text}\n` })).toEqual({ id, version, like: [], prettyName: text });
});

it.each([
  ["cpe:/o:redhat:enterprise_linux:7.3:ga:server", "rhel", "7.3"],
  ["cpe:2.3:o:fedoraproject:fedora:38:*:*:*", "fedora", "38"],
  ["cpe:/o:centos:linux:6:GA", "centos", "6"],
])("system-release-cpe %s", (text, id, version) => {
  expect(distributionOf({ "etc/system-release-cpe": text, "etc/redhat-release": "Fedora release 1" })).toEqual({
    id,
    version,
    like: [],
  });
});

it("debian_version fills in what testing and sid leave out", () => {
  const of = (version: string) =>
    distributionOf({ "etc/os-release": "ID=debian", "etc/debian_version": version })?.version;
  expect(["12.5\n", "trixie/sid\n", "sid"].map(of)).toEqual(["12", "unstable", "unstable"]);
  expect(distributionOf({ "etc/os-release": "ID=debian\nVERSION_ID=11", "etc/debian_version": "12.1" })?.version).toBe(
    "11",
  );
  expect(
    distributionOf({ "etc/os-release": "ID=ubuntu\nVERSION_ID=22.04", "etc/debian_version": "bookworm/sid" })?.version,
  ).toBe("22.04");
  expect(distributionOf({ "etc/debian_version": "8.11" })).toEqual({ id: "debian", version: "8", like: [] });
});

it("alpine-release and a busybox known by its name alone come last", () => {
  expect(distributionOf({ "etc/alpine-release": "3.20.3\n", "bin/busybox": "x" })).toEqual({
    id: "alpine",
    version: "3.20.3",
    like: [],
  });
  expect(distributionOf({ "bin/busybox": "x" })).toEqual({ id: "busybox", version: "", like: [] });
  expect(distributionOf({ "etc/passwd": "" })).toBeUndefined();
});

it("reads the squashed view: replaced, removed and empty files", () => {
  const base = { "etc/os-release": "ID=debian\nVERSION_ID=12", "usr/lib/os-release": "ID=other" };
  expect(distributionOf(base, { "etc/os-release": "ID=debian\nVERSION_ID=13" })?.version).toBe("13");
  expect(distributionOf(base, { "etc/os-release": null })?.id).toBe("other");
  expect(distributionOf(base, { "etc/os-release": "" })?.id).toBe("other");
  expect(distributionOf(base, { etc: null, usr: null })).toBeUndefined();
});

it("a file too large to be one is a problem", () => {
  const run = runCataloger(distributionCataloger, [{ "etc/os-release": "ID=x\n".repeat(20_000) }]);
  expect(run.findings).toEqual([
    [{ kind: "problem", path: "etc/os-release", value: { text: "larger than 65536 bytes: not read" } }],
  ]);
});
