import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type LayerFiles, runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { splitCsv } from "./installed-files.ts";
import { pythonCataloger } from "./python-cataloger.ts";

const run = (...layers: LayerFiles[]) => runCataloger(pythonCataloger, layers);
const SITE = "usr/lib/python3/site-packages";
const metadata = (name: string, version: string, more = "") =>
  `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n${more}`;
const licensesOf = (more: string) =>
  run({ [`${SITE}/a.dist-info/METADATA`]: metadata("a", "1", more) }).packages[0]?.licenses;

describe("python", () => {
  it("asks for metadata and file lists", () => {
    const asked = [
      `${SITE}/a-1.dist-info/METADATA`,
      `${SITE}/a-1.dist-info/RECORD`,
      `${SITE}/b-1.egg-info/PKG-INFO`,
      `${SITE}/b-1.egg-info/installed-files.txt`,
      `${SITE}/c-1.egg-info`,
      `${SITE}/d-1.DIST-INFO/METADATA`,
      `${SITE}/e.egg/EGG-INFO/PKG-INFO`,
    ];
    const others = [`${SITE}/a-1.dist-info/WHEEL`, `${SITE}/b-1.egg-info/SOURCES.txt`, "srv/METADATA", "srv/x/RECORD"];
    const result = run(Object.fromEntries([...asked, ...others].map((path) => [path, metadata(path.slice(30), "1")])));
    expect(result.asked).toEqual([asked.sort()]);
    expect(result.packages).toHaveLength(5);
  });

  it("a package with all of its fields", () => {
    const result = run({
      [`${SITE}/Foo_Bar.baz-1!2.0.dist-info/METADATA`]: metadata(
        "Foo_Bar.baz",
        "1!2.0+local",
        "Summary: One line\nHome-page: UNKNOWN\nAuthor: A\nAuthor-email: a@example.org\nLicense: MIT\nProject-URL: Docs, https://d\nProject-URL: Homepage, https://h\n\nName: in the description\n",
      ),
    });
    expect(result.packages).toEqual([
      {
        type: "python",
        name: "Foo_Bar.baz",
        version: "1!2.0+local",
        licenses: ["MIT"],
        origin: "A <a@example.org>",
        description: "One line",
        homepage: "https://h",
        purl: "pkg:pypi/foo-bar.baz@1%212.0%2Blocal",
        location: `${SITE}/Foo_Bar.baz-1!2.0.dist-info/METADATA`,
        layer: 0,
        cataloger: "python",
        owned: [],
      },
    ]);
  });

  it("licences: expression, then name, then classifiers; a whole text is no name", () => {
    const classifier = "Classifier: License :: OSI Approved :: MIT License\n";
    expect(licensesOf(`License-Expression: MIT OR Apache-2.0\nLicense: x\n${classifier}`)).toEqual([
      "MIT OR Apache-2.0",
    ]);
    expect(licensesOf(`License: BSD\n${classifier}`)).toEqual(["BSD"]);
    expect(licensesOf(`License: UNKNOWN\n${classifier}${classifier}`)).toEqual(["MIT License"]);
    expect(licensesOf(`License: Copyright\n        Permission is\n\thereby granted\n${classifier}`)).toEqual([
      "MIT License",
    ]);
    expect(licensesOf(`License: ${"long ".repeat(60)}\n`)).toEqual([]);
    expect(licensesOf("License: one\nLicense: two\n")).toEqual(["two"]);
  });

  it("RECORD: relative, absolute and quoted paths, digests in hex", () => {
    const bytes = createHash("sha256").update("x").digest();
    const long = createHash("sha512").update("x").digest();
    const result = run({
      [`${SITE}/a-1.dist-info/METADATA`]: metadata("a", "1"),
      [`${SITE}/a-1.dist-info/RECORD`]: [
        `a/__init__.py,sha256=${bytes.toString("base64url")},12`,
        `"a/with, comma ""and"" quote.py",sha512=${long.toString("base64url")},3`,
        "../../../bin/a,md5=abc,",
        "/etc/a.conf,,",
        "a-1.dist-info/RECORD,,",
        "../../../../../out,,",
        "",
      ].join("\r\n"),
    });
    expect(result.owned(result.packages[0])).toEqual([
      { path: "etc/a.conf" },
      { path: "usr/bin/a" },
      { path: `${SITE}/a-1.dist-info/RECORD` },
      { path: `${SITE}/a/__init__.py`, digest: `sha256:${bytes.toString("hex")}`, sizeBytes: 12 },
      { path: `${SITE}/a/with, comma "and" quote.py`, digest: `sha512:${long.toString("hex")}`, sizeBytes: 3 },
    ]);
    expect(result.findings.flat().filter((finding) => finding.kind === "problem")).toHaveLength(1);
  });

  it("installed-files.txt: relative to its own directory", () => {
    const result = run({
      [`${SITE}/b.egg-info/PKG-INFO`]: metadata("b", "1"),
      [`${SITE}/b.egg-info/installed-files.txt`]: "../b.py\nPKG-INFO\n",
    });
    expect(result.owned(result.packages[0]).map((file) => file.path)).toEqual([
      `${SITE}/b.egg-info/PKG-INFO`,
      `${SITE}/b.py`,
    ]);
  });

  it("leftovers of pip, the interpreter itself and records without a name are no packages", () => {
    const result = run({
      [`${SITE}/~a-1.dist-info/METADATA`]: metadata("a", "1"),
      [`${SITE}/Python-3.11.egg-info`]: metadata("Python", "3.11.2"),
      [`${SITE}/c.egg-info`]: "Metadata-Version: 1\nVersion: 1\n",
      [`${SITE}/d.egg-info`]: metadata("d", "1"),
      [`${SITE}/wrong-name-9.dist-info/METADATA`]: metadata("right", "1"),
    });
    expect(result.packages.map((found) => found.name)).toEqual(["d", "right"]);
    expect(result.findings.flat().filter((finding) => finding.kind === "problem")).toEqual([
      { kind: "problem", path: `${SITE}/c.egg-info`, value: { text: "no usable name or version" } },
    ]);
  });

  it("the squashed view decides, for lists too", () => {
    const base = { [`${SITE}/a.dist-info/METADATA`]: metadata("a", "1"), [`${SITE}/a.dist-info/RECORD`]: "a.py,,\n" };
    const upgraded = run(base, {
      [`${SITE}/a.dist-info/METADATA`]: metadata("a", "2"),
      [`${SITE}/a.dist-info/RECORD`]: "b.py,,\n",
    });
    expect(upgraded.packages.map((found) => found.version)).toEqual(["2"]);
    expect(upgraded.owned(upgraded.packages[0]).map((file) => file.path)).toEqual([`${SITE}/b.py`]);
    expect(run(base, { [`${SITE}/a.dist-info`]: null }).packages).toEqual([]);
  });
});

it.each([
  ["a,b,c", ["a", "b", "c"]],
  ["", [""]],
  [",", ["", ""]],
  ['"a""b",c', ['a"b', "c"]],
  ['"open,c', ["open,c"]],
  ['"a"x,b', ["a", "b"]],
  ["1,2,3,4,5", ["1", "2", "3", "4"]],
])("csv %j", (line, fields) => {
  expect(splitCsv(line)).toEqual(fields);
});
