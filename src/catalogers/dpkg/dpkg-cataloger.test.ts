import { describe, expect, it } from "vitest";
import { type LayerFiles, runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { dpkgCataloger } from "./dpkg-cataloger.ts";

const debian = { id: "debian", version: "12", like: [] };
const STATUS = "var/lib/dpkg/status";
const md5 = "0123456789abcdef0123456789abcdef";

const stanza = (name: string, version: string, more = "") =>
  `Package: ${name}\nStatus: install ok installed\nVersion: ${version}\nArchitecture: amd64\n${more}\n`;
const run = (...layers: LayerFiles[]) => runCataloger(dpkgCataloger, layers, debian);
const names = (...layers: LayerFiles[]) =>
  run(...layers).packages.map((one) => `${one.name} ${one.version} ${one.architecture}`);
const problemsOf = (files: LayerFiles) =>
  run(files)
    .findings.flat()
    .filter((finding) => finding.kind === "problem")
    .map((finding) => (finding.value as { text: string }).text);

describe("dpkg", () => {
  it("asks for its database, its lists, and copyright files", () => {
    const asked = [
      "usr/share/doc/bash/copyright",
      "var/lib/dpkg/diversions",
      "var/lib/dpkg/info/bash.list",
      "var/lib/dpkg/info/bash.md5sums",
      STATUS,
      "var/lib/dpkg/status.d/base",
      "var/lib/dpkg/updates/0001",
    ];
    const others = [
      "var/lib/dpkg/status-old",
      "var/lib/dpkg/info/bash.postinst",
      "usr/share/doc/a/b/copyright",
      "srv/var/lib/dpkg/status",
    ];
    expect(run(Object.fromEntries([...asked, ...others].map((path) => [path, ""]))).asked).toEqual([asked]);
  });

  it("a package with all of its fields", () => {
    const result = run({
      [STATUS]: [
        "Package: bash",
        "ESSENTIAL: yes",
        "status:   install ok installed",
        "Installed-Size: 7164",
        "Maintainer: Matthias Klose <doko@debian.org>",
        "Architecture: amd64",
        "Source: bash-src (5.2.15-2)",
        "Version: 1:5.2.15-2+b13",
        "Conffiles:",
        ` /etc/bash.bashrc ${md5}`,
        " /etc/new newconffile",
        ` /etc/with blank ${md5} obsolete`,
        ` /etc/leaving ${md5} remove-on-upgrade`,
        " /etc/no-digest",
        "Description: GNU Bourne Again SHell",
        " Bash is an sh-compatible command language interpreter.",
        " .",
        " Version: not a field",
        "Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html",
        "",
      ].join("\n"),
      "var/lib/dpkg/info/bash.list": "/.\n/bin\n/bin/bash\n/etc\n/etc/bash.bashrc\n/usr/share/a b\n",
      "var/lib/dpkg/info/bash.md5sums": `${md5.toUpperCase()}  bin/bash\n${md5}  usr/share/a b\nbroken\n`,
      "usr/share/doc/bash/copyright":
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: GPL-3+\n\nFiles: *\nLicense: GPL-3+\n text\n\nFiles: x\nLicense: MIT or BSD-3-clause\n\nLicense:\n no name\n",
    });
    expect(result.packages).toEqual([
      {
        type: "dpkg",
        name: "bash",
        version: "1:5.2.15-2+b13",
        epoch: 1,
        upstreamVersion: "5.2.15",
        release: "2+b13",
        architecture: "amd64",
        source: { name: "bash-src", version: "5.2.15-2" },
        licenses: ["GPL-3+", "MIT or BSD-3-clause"],
        sizeBytes: 7164 * 1024,
        origin: "Matthias Klose <doko@debian.org>",
        description: "GNU Bourne Again SHell",
        homepage: "http://tiswww.case.edu/php/chet/bash/bashtop.html",
        purl: "pkg:deb/debian/bash@1:5.2.15-2%2Bb13?arch=amd64&distro=debian-12&upstream=bash-src%405.2.15-2",
        location: STATUS,
        layer: 0,
        cataloger: "dpkg",
        owned: [1, 2, 4].map((ordinal) => ({ layer: 0, ordinal })),
      },
    ]);
    expect(result.owned(result.packages[0])).toEqual([
      { path: "bin" },
      { path: "bin/bash", digest: `md5:${md5}` },
      { path: "etc" },
      { path: "etc/bash.bashrc", digest: `md5:${md5}`, isConfiguration: true },
      { path: "etc/new", isConfiguration: true },
      { path: "etc/with blank", digest: `md5:${md5}`, isConfiguration: true },
      { path: "usr/share/a b", digest: `md5:${md5}` },
    ]);
  });

  it("without Source the source is the package itself; upstream is what the field says", () => {
    const result = run({ [STATUS]: `${stanza("a", "1.0-1-2")}${stanza("b", "2:3~rc1", "Source: c\n")}` });
    expect(result.packages.map((one) => [one.source, one.upstreamVersion, one.release, one.epoch])).toEqual([
      [{ name: "a", version: "1.0-1-2" }, "1.0-1", "2", undefined],
      [{ name: "c", version: "2:3~rc1" }, "3~rc1", undefined, 2],
    ]);
    expect(result.packages.map((one) => one.purl)).toEqual([
      "pkg:deb/debian/a@1.0-1-2?arch=amd64&distro=debian-12",
      "pkg:deb/debian/b@2:3~rc1?arch=amd64&distro=debian-12&upstream=c",
    ]);
  });

  it("the state alone says whether files are there, whatever is wanted", () => {
    const states = [
      "not-installed",
      "config-files",
      "half-installed",
      "unpacked",
      "half-configured",
      "triggers-awaited",
      "triggers-pending",
      "installed",
    ];
    const status = states
      .map((state) => `Package: ${state}\nStatus: deinstall ok ${state}\nVersion: 1\nArchitecture: all\n\n`)
      .join("");
    expect(names({ [STATUS]: `${status}Package: no-status\nVersion: 1\n` })).toEqual(
      states.slice(2).map((state) => `${state} 1 all`),
    );
  });

  it("the same name in two architectures is two packages, each with its own lists", () => {
    const same = (arch: string) =>
      `Package: libc6\nStatus: install ok installed\nMulti-Arch: same\nVersion: 2\nArchitecture: ${arch}\n\n`;
    const result = run({
      [STATUS]: same("amd64") + same("i386"),
      "var/lib/dpkg/info/libc6:amd64.list": "/lib64/x\n",
      "var/lib/dpkg/info/libc6:i386.list": "/lib32/x\n",
      "var/lib/dpkg/info/libc6:i386.md5sums": `${md5}  lib32/x\n`,
    });
    expect(result.packages.map((one) => [one.architecture, result.owned(one)])).toEqual([
      ["amd64", [{ path: "lib64/x" }]],
      ["i386", [{ path: "lib32/x", digest: `md5:${md5}` }]],
    ]);
  });

  it("the newest status is the whole truth, with the newest of each list", () => {
    const base = {
      [STATUS]: stanza("a", "1") + stanza("b", "1"),
      "var/lib/dpkg/info/a.list": "/old\n",
      "var/lib/dpkg/info/b.list": "/b\n",
    };
    const upper = { [STATUS]: stanza("a", "2") + stanza("b", "1"), "var/lib/dpkg/info/a.list": "/new\n" };
    const result = run(base, upper);
    expect(
      result.packages.map((one) => [one.name, one.version, one.layer, result.owned(one).map((file) => file.path)]),
    ).toEqual([
      ["a", "2", 1, ["new"]],
      ["b", "1", 1, ["b"]],
    ]);
    expect(names(base, { [STATUS]: null })).toEqual([]);
    expect(names(base, { [STATUS]: "" })).toEqual([]);
    expect(names(base, { "var/lib": null })).toEqual([]);
  });

  it("the journal of an interrupted run stands over status, in the order of its numbers", () => {
    const updates = {
      "var/lib/dpkg/updates/0010": stanza("a", "3"),
      "var/lib/dpkg/updates/0002": stanza("a", "2"),
      "var/lib/dpkg/updates/0003":
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: amd64\n",
      "var/lib/dpkg/updates/0004": "Package: never\nStatus: purge ok not-installed\n",
      "var/lib/dpkg/updates/tmp.i": stanza("a", "9"),
      "var/lib/dpkg/updates/0005": stanza("new", "1").replace("amd64", "all"),
    };
    expect(names({ [STATUS]: stanza("a", "1") + stanza("gone", "1"), ...updates })).toEqual(["a 3 amd64", "new 1 all"]);
    expect(
      names({ [STATUS]: stanza("a", "1") + stanza("gone", "1"), ...updates }, { "var/lib/dpkg/updates": null }),
    ).toEqual(["a 1 amd64", "gone 1 amd64"]);
  });

  it("in the journal a package that is not Multi-Arch: same replaces its other architecture", () => {
    const update = { "var/lib/dpkg/updates/0001": stanza("a", "2").replace("amd64", "all") };
    expect(names({ [STATUS]: stanza("a", "1"), ...update })).toEqual(["a 2 all"]);
    const same = "Multi-Arch: same\n";
    const coinstalled = { "var/lib/dpkg/updates/0001": stanza("a", "2", same).replace("amd64", "i386") };
    expect(names({ [STATUS]: stanza("a", "2", same), ...coinstalled })).toEqual(["a 2 amd64", "a 2 i386"]);
  });

  it("distroless: a file for each package, its digests beside it, added over layers", () => {
    const result = run(
      {
        "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12\nArchitecture: amd64\n",
        "var/lib/dpkg/status.d/base.md5sums": `${md5}  etc/x\n`,
      },
      {
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
        "var/lib/dpkg/status.d/notes": "just text\n",
      },
    );
    expect(result.packages.map((one) => [one.name, one.location, one.layer, result.owned(one)])).toEqual([
      ["base-files", "var/lib/dpkg/status.d/base", 0, [{ path: "etc/x", digest: `md5:${md5}` }]],
      ["tzdata", "var/lib/dpkg/status.d/tzdata", 1, []],
    ]);
    expect(result.packages[0]?.owned).toHaveLength(1);
  });

  it("diversions are told and not applied", () => {
    const files = {
      [STATUS]: stanza("dash", "1"),
      "var/lib/dpkg/info/dash.list": "/bin/sh\n",
      "var/lib/dpkg/diversions": "/bin/sh\n/bin/sh.distrib\ndash\n/a\n/b\n:\n/cut/off\n",
    };
    const result = run(files);
    expect(result.other).toEqual({
      diversions: [
        { path: "bin/sh", divertedTo: "bin/sh.distrib", package: "dash" },
        { path: "a", divertedTo: "b" },
      ],
    });
    expect(result.owned(result.packages[0])).toEqual([{ path: "bin/sh" }]);
  });

  it("a package URL names a distribution only if that is Debian or like it", () => {
    const purl = (distribution: Parameters<typeof runCataloger>[2]) =>
      runCataloger(dpkgCataloger, [{ [STATUS]: stanza("a", "1") }], distribution).packages[0]?.purl;
    expect(purl({ id: "linuxmint", version: "21", like: ["ubuntu", "debian"] })).toBe(
      "pkg:deb/linuxmint/a@1?arch=amd64&distro=linuxmint-21",
    );
    expect(purl({ id: "fedora", version: "38", like: [] })).toBe("pkg:deb/a@1?arch=amd64");
    expect(purl(undefined)).toBe("pkg:deb/a@1?arch=amd64");
  });

  it("paths that are not UTF-8 keep their bytes", () => {
    const list = Buffer.concat([Buffer.from("/usr/caf"), Buffer.from([0xe9]), Buffer.from("\n/usr/é\n")]);
    const result = run({ [STATUS]: stanza("a", "1"), "var/lib/dpkg/info/a.list": list });
    expect(result.owned(result.packages[0]).map((file) => file.path)).toEqual(["usr/caf\udce9", "usr/é"]);
  });

  it("broken input costs the stanza, the line or the field", () => {
    const broken = `Version: 1\nStatus: install ok installed\n\n${stanza("ok", "1", "Installed-Size: many\nMaintainer: x\u0000y\n: odd\nno colon\n")}Package: a/b\nVersion: 1\n\n${stanza("none", "")}`;
    expect(names({ [STATUS]: broken })).toEqual(["ok 1 amd64"]);
    expect(run({ [STATUS]: broken }).packages[0]).toMatchObject({ origin: "x\ufffdy" });
    expect(problemsOf({ [STATUS]: broken })).toEqual([
      "a stanza without a usable package name was left out",
      "a stanza without a usable package name was left out",
      "none has no usable version and was left out",
    ]);
    expect(problemsOf({ "var/lib/dpkg/info/a.list": "/../x\n/a\n" })).toEqual(["left out 1 path"]);
    expect(problemsOf({ "var/lib/dpkg/info/a.md5sums": "xyz\n" })).toEqual(["left out 1 line"]);
    const many = "Package: a/b\n\n".repeat(100);
    expect(problemsOf({ [STATUS]: many })).toHaveLength(21);
    expect(problemsOf({ [STATUS]: many }).at(-1)).toBe("80 more problems in this file");
  });

  it("copyright files that are not machine-readable, or endless, give no licences", () => {
    const licenses = (text: string) =>
      run({ [STATUS]: stanza("a", "1"), "usr/share/doc/a/copyright": text }).packages[0]?.licenses;
    expect(licenses("This is free.\n\nLicense: GPL-2\n")).toEqual([]);
    expect(licenses(`Format: x\nLicense: MIT\n\n${" ".repeat(1024 * 1024)}`)).toEqual([]);
    expect(licenses("Format: x\n\nLicense: MIT\n\nLicense: MIT\n text\n")).toEqual(["MIT"]);
  });
});
