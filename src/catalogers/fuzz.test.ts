import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { areFixturesRequired, findFixtures, readFixtureLayers } from "../../test/catalogers/fixture-images.ts";
import {
  insertBlobs,
  rpmSchema,
  sqliteFiles,
  string,
  strings,
  writeHeader,
} from "../../test/catalogers/rpm-database.ts";
import { globMatcher, type LayerFiles, runCataloger } from "../../test/catalogers/run-cataloger.ts";
import { catalogers } from "./index.ts";
import { rpmTag } from "./rpm/header.ts";

/** Input of each cataloger's every file, written here; real files of the fixtures are added where they are. */
const written: LayerFiles = {
  "etc/os-release": 'ID=debian\nVERSION_ID="12"\nID_LIKE="a b"\nPRETTY_NAME=\'x\\"y\'\n',
  "etc/system-release-cpe": "cpe:/o:redhat:enterprise_linux:7.3:ga:server\n",
  "etc/redhat-release": "CentOS Linux release 7.9.2009 (Core)\n",
  "etc/debian_version": "trixie/sid\n",
  "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nweb:x:33:33::/var/www:\n",
  "etc/group": "root:x:0:\nadm:x:4:syslog,web\n",
  "lib/apk/db/installed":
    "P:a\nV:1-r0\nA:x86_64\nI:5\nL:MIT\no:b\nf:S\nF:usr/bin\nM:0:0:755\nR:x\na:0:0:755\nZ:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nP:b\nV:2\n\n",
  "var/lib/dpkg/status":
    "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: amd64\nSource: b (1)\nConffiles:\n /etc/x 0123456789abcdef0123456789abcdef obsolete\nDescription: x\n y\n\nPackage: c\nStatus: install ok installed\nVersion: 1\n\n",
  "var/lib/dpkg/status.d/base": "Package: base\nVersion: 1\nArchitecture: all\n",
  "var/lib/dpkg/updates/0001": "Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: amd64\n",
  "var/lib/dpkg/info/a.list": "/.\n/etc\n/etc/x\n",
  "var/lib/dpkg/info/a.md5sums": "0123456789abcdef0123456789abcdef  usr/bin/x\n",
  "var/lib/dpkg/diversions": "/a\n/b\n:\n",
  "usr/share/doc/a/copyright": "Format: x\nLicense: MIT\n\nFiles: *\nLicense: GPL-2+\n text\n",
  "app/node_modules/@a/b/package.json":
    '{"name":"@a/b","version":"1.0.0","license":{"type":"MIT"},"author":{"name":"A","email":"b"},"licenses":["x"]}',
  "usr/lib/a-1.dist-info/METADATA":
    "Metadata-Version: 2.1\nName: a\nVersion: 1\nLicense: x\n y\nClassifier: License :: OSI Approved :: MIT License\nProject-URL: Homepage, https://h\n\nbody\n",
  "usr/lib/a-1.dist-info/RECORD":
    'a/b.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"a,""b""",,\n../../bin/x,,\n',
  "usr/lib/b.egg-info/PKG-INFO": "Name: b\nVersion: 2\n",
  "usr/lib/b.egg-info/installed-files.txt": "../b.py\nPKG-INFO\n",
};

function rpmFiles(): LayerFiles {
  const header = (name: string, files: number) =>
    writeHeader([
      [rpmTag.name, string(name)],
      [rpmTag.version, string("1")],
      [rpmTag.release, string("2")],
      [rpmTag.sourceRpm, string("a-1-2.src.rpm")],
      [rpmTag.baseNames, strings(...Array.from({ length: files }, (_, at) => `file${at}`))],
      [rpmTag.directoryNames, strings("/usr/bin/", "/etc/")],
      [rpmTag.directoryIndexes, { type: "int32", values: Array.from({ length: files }, (_, at) => at % 2) }],
      [rpmTag.fileModes, { type: "int16", values: Array(files).fill(0o100644) }],
      [rpmTag.fileDigests, strings(...Array(files).fill("0123456789abcdef0123456789abcdef"))],
    ]);
  const { file, wal } = sqliteFiles((database) => {
    database.exec(`PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; ${rpmSchema}`);
    insertBlobs(
      database,
      Array.from({ length: 20 }, (_, at) => header(`p${at}`, at * 3)),
    );
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    insertBlobs(database, [header("last", 100)]);
  });
  return { "var/lib/rpm/rpmdb.sqlite": file, "var/lib/rpm/rpmdb.sqlite-wal": wal ?? "" };
}

/** Changes to a file: bytes replaced, a piece removed, repeated, or put in from elsewhere. */
const changes = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    kind: fc.constantFrom("byte", "byte", "byte", "cut", "repeat", "insert", "truncate"),
    length: fc.integer({ min: 1, max: 300 }),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 12 }),
    word: fc.constantFrom(
      "\n",
      ":",
      "\0",
      "/../",
      "\n\n",
      '"',
      "\\",
      "\xff\xff\xff\xff",
      "\x7f\xff\xff\xff",
      "\0\0\0\0",
      " ",
      "\r\n",
    ),
    useWord: fc.boolean(),
  }),
  { minLength: 1, maxLength: 8 },
);
type Change = typeof changes extends fc.Arbitrary<(infer C)[]> ? C : never;

function mutate(content: Buffer, list: readonly Change[]): Buffer {
  let result = content;
  for (const { at, kind, length, bytes, word, useWord } of list) {
    const start = Math.floor(at * result.length);
    const piece = useWord ? Buffer.from(word, "latin1") : Buffer.from(bytes);
    const before = result.subarray(0, start);
    if (kind === "byte") result = Buffer.concat([before, piece, result.subarray(start + piece.length)]);
    else if (kind === "cut") result = Buffer.concat([before, result.subarray(start + length)]);
    else if (kind === "repeat")
      result = Buffer.concat([
        before,
        ...Array<Buffer>(3).fill(result.subarray(start, start + length)),
        result.subarray(start),
      ]);
    else if (kind === "insert") result = Buffer.concat([before, piece, result.subarray(start)]);
    else result = before;
  }
  return result;
}

/** Catalogs and reconciles; whatever the input, this returns, and what it returns is bounded by the input. */
function check(layer: LayerFiles): void {
  const inputBytes = Object.values(layer).reduce((sum, content) => sum + (content?.length ?? 0), 0);
  for (const cataloger of catalogers) {
    const run = runCataloger(cataloger, [layer], { id: "debian", version: "12", like: [] });
    const values = run.findings.flat();
    // Values are pieces of the input, said once; a problem is a sentence, of which each file has a few.
    const problems = values.filter((finding) => finding.kind === "problem").length;
    expect(problems).toBeLessThanOrEqual(21 * Object.keys(layer).length);
    const valueBytes = JSON.stringify(values.map((finding) => finding.value)).length;
    expect(valueBytes).toBeLessThanOrEqual(6 * inputBytes + 300 * (values.length + 1));
    const owned = values.reduce((sum, finding) => sum + (finding.files?.length ?? 0), 0);
    expect(owned).toBeLessThanOrEqual(inputBytes);
    for (const finding of values)
      for (const file of finding.files ?? []) expect(file.path).not.toMatch(/^\/|(?:^|\/)\.\.?(?:\/|$)|^$|\0/);
    for (const found of run.packages) expect(found.purl).toMatch(/^pkg:[a-z]+\//);
  }
}

const rpmSeeds = rpmFiles();
const seeds: LayerFiles = { ...written, ...rpmSeeds };

describe("mutated package files: no exception, no endless work, bounded output", () => {
  it.each(Object.keys(seeds))("%s", (path) => {
    const content = Buffer.from(seeds[path] ?? "");
    fc.assert(
      fc.property(changes, (list) =>
        check({ ...(path.includes("rpmdb") ? rpmSeeds : {}), [path]: mutate(content, list) }),
      ),
      { numRuns: 300 },
    );
  });

  it.each(Object.keys(seeds))("%s: any bytes", (path) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => check({ [path]: Buffer.from(bytes) })),
      { numRuns: 100 },
    );
  });
});

const root = findFixtures();
if (root === undefined && !areFixturesRequired()) {
  process.stderr.write(
    "\nSKIPPED: mutated files of real images: no fixtures (set STOWAGE_FIXTURES to their directory)\n\n",
  );
}
describe.skipIf(root === undefined && !areFixturesRequired())("mutated files of real images", () => {
  const isWanted = globMatcher(catalogers.flatMap((cataloger) => cataloger.wants));

  it.each([
    ["alpine-3.20", /apk.db.installed$/, 60],
    ["debian-12-languages", /dpkg.status$/, 40],
    ["debian-12-languages", /chardet.*RECORD$|chardet.*METADATA$/, 40],
    ["debian-12-languages", /express\/package.json$/, 60],
    ["rpm-sqlite", /rpmdb.sqlite$/, 100],
    ["rpm-mariner", /rpmdb.sqlite$/, 6],
  ])("%s %s", async (name, pattern, numRuns) => {
    const layers = await readFixtureLayers(
      root ?? "(no fixtures)",
      name,
      (path) => isWanted(path) && pattern.test(path),
    );
    const files = layers.flatMap((layer) => Object.entries(layer)).filter(([, content]) => content !== null);
    expect(files.length).toBeGreaterThan(0);
    for (const [path, content] of files) {
      fc.assert(
        fc.property(changes, (list) => check({ [path]: mutate(Buffer.from(content ?? ""), list) })),
        { numRuns },
      );
    }
  });
});
