import { describe, expect, it } from "vitest";
import {
  insertBlobs,
  int16,
  int32,
  rpmDatabase,
  rpmSchema,
  sqliteFiles,
  string,
  strings,
  type Tags,
  type TagValue,
  writeHeader,
} from "../../../test/catalogers/rpm-database.ts";
import { type LayerFiles, runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { RpmHeader, rpmTag } from "./header.ts";
import { rpmCataloger } from "./rpm-cataloger.ts";

const fedora = { id: "fedora", version: "38", like: [] };
const SYSIMAGE = "usr/lib/sysimage/rpm/rpmdb.sqlite";
const VAR = "var/lib/rpm/rpmdb.sqlite";
const SHARE = "usr/share/rpm/rpmdb.sqlite";

const basic = (name: string, version = "1", release = "1"): Tags => [
  [rpmTag.name, string(name)],
  [rpmTag.version, string(version)],
  [rpmTag.release, string(release)],
];
const run = (...layers: LayerFiles[]) => runCataloger(rpmCataloger, layers, fedora);
const database = (...headers: Tags[]) => rpmDatabase(headers.map(writeHeader));
const names = (...layers: LayerFiles[]) => run(...layers).packages.map((one) => `${one.name} ${one.layer}`);
const problemsOf = (file: Buffer) =>
  run({ [VAR]: file })
    .findings.flat()
    .filter((finding) => finding.kind === "problem")
    .map((finding) => (finding.value as { text: string }).text);
const filesOf = (...more: Tags) => run({ [VAR]: database([...basic("a"), ...more]) }).findings[0]?.[0]?.files;

const sha = "a".repeat(64);

describe("rpm", () => {
  it("asks for the databases and their logs", () => {
    const asked = [SYSIMAGE, VAR, SHARE].flatMap((path) => [path, `${path}-wal`]);
    const others = ["var/lib/rpm/rpmdb.sqlite-shm", "var/lib/rpm/Packages", "srv/var/lib/rpm/rpmdb.sqlite"];
    expect(run(Object.fromEntries([...asked, ...others].map((path) => [path, ""]))).asked).toEqual([asked.sort()]);
  });

  it("a package with all of its fields", () => {
    const result = run({
      [VAR]: database([
        ...basic("delta-with-dash", "5.0^git1", "2.el9"),
        [rpmTag.epoch, int32(3)],
        [rpmTag.summary, { type: "translated", values: ["Default", "Deutsch"] }],
        [rpmTag.size, int32(80)],
        [rpmTag.vendor, string("(none)")],
        [rpmTag.packager, string("P <p@example.org>")],
        [rpmTag.license, string("MIT AND BSD-3-Clause")],
        [rpmTag.url, string("https://example.org")],
        [rpmTag.architecture, string("x86_64")],
        [rpmTag.sourceRpm, string("delta-src-5.0^git1-2.el9.src.rpm")],
        [rpmTag.modularityLabel, string("nodejs:18:1:abc")],
      ]),
    });
    expect(result.packages).toEqual([
      {
        type: "rpm",
        name: "delta-with-dash",
        version: "3:5.0^git1-2.el9",
        epoch: 3,
        upstreamVersion: "5.0^git1",
        release: "2.el9",
        architecture: "x86_64",
        source: { name: "delta-src", version: "5.0^git1-2.el9" },
        licenses: ["MIT AND BSD-3-Clause"],
        sizeBytes: 80,
        origin: "P <p@example.org>",
        description: "Default",
        homepage: "https://example.org",
        purl: "pkg:rpm/fedora/delta-with-dash@5.0%5Egit1-2.el9?arch=x86_64&distro=fedora-38&epoch=3&rpmmod=nodejs%3A18%3A1%3Aabc&upstream=delta-src-5.0%5Egit1-2.el9.src.rpm",
        location: VAR,
        layer: 0,
        cataloger: "rpm",
        owned: [],
      },
    ]);
  });

  it("an epoch of 0 is like none; a nosrc package is a source too; a long size counts", () => {
    const long: TagValue = { type: "int64", values: [5_000_000_000] };
    const result = run({
      [VAR]: database([
        ...basic("a"),
        [rpmTag.epoch, int32(0)],
        [rpmTag.longSize, long],
        [rpmTag.sourceRpm, string("a-1-1.nosrc.rpm")],
      ]),
    });
    expect(result.packages[0]).toMatchObject({
      version: "1-1",
      epoch: 0,
      sizeBytes: 5_000_000_000,
      source: { name: "a", version: "1-1" },
    });
    expect(result.packages[0]?.purl).toBe("pkg:rpm/fedora/a@1-1?distro=fedora-38&upstream=a-1-1.nosrc.rpm");
  });

  it.each([
    ["rhel", "redhat"],
    ["opensuse-leap", "opensuse"],
    ["rocky", "rocky"],
  ])("the namespace of %s is %s", (id, namespace) => {
    const [found] = runCataloger(rpmCataloger, [{ [VAR]: database(basic("a")) }], {
      id,
      version: "9",
      like: [],
    }).packages;
    expect(found?.purl).toBe(`pkg:rpm/${namespace}/a@1-1?distro=${id}-9`);
  });

  it("files in state normal, with all that the database records", () => {
    const files = filesOf(
      [
        rpmTag.baseNames,
        strings("a.conf", "bin", "link", "replaced", "not-installed", "shared", "colour", "ghost", ""),
      ],
      [rpmTag.directoryNames, strings("/etc/", "/usr/", "/")],
      [rpmTag.directoryIndexes, int32(0, 1, 1, 1, 1, 1, 1, 0, 2)],
      [rpmTag.fileSizes, int32(11, 0, 5, 1, 1, 1, 1, 0, 0)],
      [rpmTag.fileStates, { type: "int8", values: [0, 0, 0, 1, 2, 3, 4, 0, 0] }],
      [rpmTag.fileModes, int16(0o100644, 0o40755, 0o120777, 0o100644, 0o100644, 0o100644, 0o100644, 0o100600, 0o40755)],
      [rpmTag.fileDigests, strings(sha.toUpperCase(), "", "", sha, sha, sha, sha, "", "")],
      [rpmTag.fileLinkTargets, strings("", "", "../x", "", "", "", "", "", "")],
      [rpmTag.fileFlags, int32(17, 0, 0, 0, 0, 0, 0, 64, 0)],
      [rpmTag.fileUserNames, strings(...Array(9).fill("root"))],
      [rpmTag.fileGroupNames, strings(...Array(9).fill("wheel"))],
      [rpmTag.fileDigestAlgorithm, int32(8)],
    );
    const owner = { user: "root", group: "wheel" };
    expect(files).toEqual([
      { ...owner, path: "etc/a.conf", mode: 0o100644, sizeBytes: 11, digest: `sha256:${sha}`, isConfiguration: true },
      { ...owner, path: "usr/bin", mode: 0o40755, sizeBytes: 0, isDirectory: true },
      { ...owner, path: "usr/link", mode: 0o120777, sizeBytes: 5, linkTarget: "../x" },
      { ...owner, path: "etc/ghost", mode: 0o100600, sizeBytes: 0, isGhost: true },
    ]);
  });

  it.each([
    [undefined, 32, "md5"],
    [1, 32, "md5"],
    [2, 40, "sha1"],
    [9, 96, "sha384"],
    [10, 128, "sha512"],
    [11, 56, "sha224"],
    [12, 64, "sha3-256"],
    [6, 48, undefined],
    [8, 32, undefined],
  ])("digest algorithm %s with %i digits is %s", (algorithm, digits, name) => {
    const digest = "0f".repeat(digits / 2);
    const files = filesOf(
      [rpmTag.baseNames, strings("x")],
      [rpmTag.directoryNames, strings("/")],
      [rpmTag.directoryIndexes, int32(0)],
      [rpmTag.fileDigests, strings(digest)],
      ...(algorithm === undefined ? [] : ([[rpmTag.fileDigestAlgorithm, int32(algorithm)]] as const)),
    );
    expect(files).toEqual([name === undefined ? { path: "x" } : { path: "x", digest: `${name}:${digest}` }]);
  });

  it("old headers with whole paths; entries added at installation replace those of the signed region", () => {
    expect(filesOf([rpmTag.oldFileNames, strings("/bin/a", "/bin/b")])).toEqual([{ path: "bin/a" }, { path: "bin/b" }]);
    expect(
      filesOf(
        [rpmTag.oldFileNames, strings("/old")],
        [rpmTag.fileModes, int16(0o100600)],
        [rpmTag.baseNames, strings("new")],
        [rpmTag.directoryNames, strings("/")],
        [rpmTag.directoryIndexes, int32(0)],
        [rpmTag.fileModes, int16(0o100644)],
      ),
    ).toEqual([{ path: "new", mode: 0o100644 }]);
  });

  it("keys are no packages; one without a release is a problem", () => {
    const file = database(basic("gpg-pubkey", "abc", "def"), basic("a"), [
      [rpmTag.name, string("b")],
      [rpmTag.version, string("1")],
    ]);
    expect(names({ [VAR]: file })).toEqual(["a 0"]);
    expect(problemsOf(file)).toEqual(["a package without a usable name, version or release was left out (b)"]);
  });

  it("rows that are in the log only", () => {
    const { file, wal = Buffer.alloc(0) } = sqliteFiles((writer) => {
      writer.exec(`PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; ${rpmSchema}`);
      insertBlobs(writer, [writeHeader(basic("one"))]);
      writer.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      insertBlobs(writer, [writeHeader(basic("two"))]);
    });
    expect(names({ [VAR]: file })).toEqual(["one 0"]);
    expect(names({ [VAR]: file, [`${VAR}-wal`]: wal })).toEqual(["one 0", "two 0"]);
    expect(names({ [VAR]: file, [`${VAR}-wal`]: "" })).toEqual(["one 0"]);
    // A layer's log says nothing of another layer's database, but somebody should know.
    const apart = run({ [VAR]: file }, { [`${VAR}-wal`]: wal });
    expect(apart.packages.map((one) => one.name)).toEqual(["one"]);
    expect(apart.notes).toEqual([
      { code: "cataloger-problem", path: `${VAR}-wal`, text: expect.stringContaining("another layer") },
    ]);
    expect(run({ [VAR]: file, [`${VAR}-wal`]: wal }, { [VAR]: file }).notes).toHaveLength(1);
    expect(run({ [VAR]: file, [`${VAR}-wal`]: wal }).notes).toEqual([]);
    expect(run({ [VAR]: file, [`${VAR}-wal`]: wal }, { "var/lib/rpm": null }).notes).toEqual([]);
  });

  it("the squashed view decides, and of several places the first", () => {
    const [a, b] = [database(basic("a")), database(basic("b"))];
    expect(names({ [VAR]: a }, { [VAR]: b })).toEqual(["b 1"]);
    expect(names({ [VAR]: a }, { [VAR]: null })).toEqual([]);
    expect(names({ [VAR]: a }, { [VAR]: "" })).toEqual([]);
    expect(names({ [SHARE]: a })).toEqual(["a 0"]);
    expect(names({ [VAR]: a, [SYSIMAGE]: b })).toEqual(["b 0"]);
    expect(run({ [VAR]: a, [SYSIMAGE]: b }).notes?.map((note) => note.path)).toEqual([VAR]);
  });

  it("a view, a table without packages, and other files", () => {
    const view = sqliteFiles((writer) =>
      writer.exec("CREATE TABLE x (a, b); CREATE VIEW Packages AS SELECT a, b FROM x"),
    ).file;
    expect(problemsOf(view)).toEqual(["Packages is a view, not a table"]);
    expect(problemsOf(Buffer.from("hello"))).toEqual(["not an SQLite database"]);
    expect(problemsOf(rpmDatabase([Buffer.from("short"), Buffer.alloc(100, 0xff)]))).toEqual([
      "a package's header is damaged: shorter than its own lengths",
      "a package's header is damaged: more entries or data than rpm allows",
    ]);
    const noBlob = sqliteFiles((writer) =>
      writer.exec(
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob); INSERT INTO Packages (blob) VALUES ('text')",
      ),
    );
    expect(problemsOf(noBlob.file)).toEqual(["a package's header is damaged: no header"]);
  });

  it("names that would stand for terabytes of paths are cut", () => {
    const count = 20_000;
    const tags: Tags = [
      ...basic("bomb"),
      [rpmTag.baseNames, strings(...Array(count).fill("x"))],
      [rpmTag.directoryNames, strings(`/${"d/".repeat(2000)}`, `/${"e".repeat(10_000)}/`)],
      [rpmTag.directoryIndexes, int32(...Array.from({ length: count }, (_, at) => (at === 1 ? 1 : at === 2 ? 7 : 0)))],
    ];
    const file = database(tags);
    const files = run({ [VAR]: file }).findings[0]?.[0]?.files ?? [];
    expect(files.length).toBeGreaterThan(1000);
    expect(files.length).toBeLessThan(10_000);
    expect(problemsOf(file)).toEqual([
      "a package owns more files than are kept: the rest was left out",
      "left out 2 files without a usable path",
    ]);
  });
});

describe("header", () => {
  const parse = (blob: Buffer) => {
    const header = RpmHeader.parse(blob);
    if (typeof header === "string") throw new Error(header);
    return header;
  };

  it("numbers of each width, and their alignment", () => {
    const header = parse(
      writeHeader([
        [1, { type: "int8", values: [1, 255] }],
        [2, int16(65_535)],
        [3, int32(4_294_967_295)],
        [4, { type: "int64", values: [2 ** 40] }],
        [5, { type: "binary", bytes: Buffer.from([1, 2]) }],
      ]),
    );
    expect([1, 2, 3, 4, 5, 9].map((tag) => [...header.numbers(tag)])).toEqual([
      [1, 255],
      [65_535],
      [4_294_967_295],
      [2 ** 40],
      [],
      [],
    ]);
    expect(header.damaged).toBe(0);
  });

  it.each([
    ["an offset beyond the data", (entry: Buffer) => entry.writeUInt32BE(9999, 8)],
    ["a negative offset", (entry: Buffer) => entry.writeInt32BE(-16, 8)],
    ["a count beyond the data", (entry: Buffer) => entry.writeUInt32BE(0xffffffff, 12)],
    ["an unknown type", (entry: Buffer) => entry.writeUInt32BE(77, 4)],
  ])("%s costs the entry", (_, damage) => {
    const blob = writeHeader([
      [1000, string("name")],
      [1003, int32(7)],
    ]);
    damage(blob.subarray(24, 40));
    const header = parse(blob);
    expect([header.string(1000), header.has(1003), header.damaged]).toEqual(["name", false, 1]);
  });

  it("a string without its end is none", () => {
    const blob = writeHeader([[1000, strings("a", "b")]]);
    blob[blob.length - 1] = 0x62;
    expect(parse(blob).strings(1000)).toHaveLength(0);
  });

  it("lengths that lie", () => {
    const blob = writeHeader(basic("a"));
    expect(RpmHeader.parse(blob.subarray(0, blob.length - 1))).toBe("shorter than it says");
    expect(RpmHeader.parse(Buffer.alloc(8))).toBe("more entries or data than rpm allows");
    blob.writeUInt32BE(0x10000000, 4);
    expect(RpmHeader.parse(blob)).toBe("more entries or data than rpm allows");
  });
});
