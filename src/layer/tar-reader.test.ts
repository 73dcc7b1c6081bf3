import fc from "fast-check";
import { extract } from "tar-stream";
import { describe, expect, it } from "vitest";
import {
  gnuLongHeader,
  paxHeader,
  type SparseContent,
  type TarEntry as Spec,
  tarStream,
} from "../../test/images/builder.ts";
import { defaultLimits, type Limits } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { type TarEntry, TarReader } from "./tar-reader.ts";

interface Read extends TarEntry {
  readonly content: string;
}

function read(tar: Buffer, options: { limits?: Partial<Limits>; chunkBytes?: number } = {}): Read[] {
  const entries: Read[] = [];
  let present: { entry: TarEntry; content: Buffer[] } | undefined;
  const reader = new TarReader(
    {
      begin(entry) {
        if (present) throw new Error("an entry began before the one before it had finished");
        present = { entry, content: [] };
      },
      content: (bytes) => present?.content.push(Buffer.from(bytes)),
      finish() {
        if (!present) throw new Error("an entry finished that had not begun");
        entries.push({ ...present.entry, content: Buffer.concat(present.content).toString("latin1") });
        present = undefined;
      },
    },
    { ...defaultLimits, ...options.limits },
    "test",
  );
  const size = options.chunkBytes ?? tar.length;
  for (let at = 0; at < tar.length; at += size) reader.write(tar.subarray(at, at + size));
  reader.end();
  for (const { typeflag, size: declared, content } of entries) {
    if (!"12".includes(typeflag)) expect(content.length).toBe(declared);
  }
  return entries;
}

/** `name=content` of each entry: most tests need no more. */
const brief = (tar: Buffer) => read(tar).map(({ name, content }) => `${name}=${content}`);

function failure(tar: Buffer, options: Parameters<typeof read>[1] = {}): string {
  try {
    read(tar, options);
  } catch (error) {
    if (error instanceof StowageError) {
      const { reason, limit } = error.details as { reason?: string; limit?: string };
      return `${error.code}: ${reason ?? limit}`;
    }
    throw error;
  }
  return "no failure";
}

const tar = (...entries: Spec[]) => tarStream(entries);
const after: Spec = { path: "after", content: "A" };
const raw = (bytes: Buffer): Spec => ({ path: "", raw: bytes });
const field = (at: number, bytes: Buffer | string) => (header: Buffer) => {
  Buffer.from(bytes as string, "latin1").copy(header, at);
};

describe("B2: headers", () => {
  it("reads every field of a ustar header", () => {
    const [entry] = read(
      tar({ path: "a/b", content: "hello", mode: 0o104755, uid: 1000, gid: 50, mtime: 1_600_000_000, format: "pax" }),
    );
    expect(entry).toEqual({
      typeflag: "0",
      name: "a/b",
      link: "",
      mode: 0o4755,
      uid: 1000,
      gid: 50,
      mtime: 1_600_000_000,
      size: 5,
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: new Map(),
      content: "hello",
    });
  });

  it("joins the prefix of ustar, whatever its version says", () => {
    const prefixed = (version: string) => (header: Buffer) => {
      field(345, "some/prefix")(header);
      field(263, version)(header);
    };
    for (const version of ["00", "99", "\0\0"]) {
      expect(brief(tar({ path: "name", content: "x", patch: prefixed(version) }))).toEqual(["some/prefix/name=x"]);
    }
  });

  it("knows star's shorter prefix, which the times follow", () => {
    const star = (header: Buffer) => {
      field(345, "p".repeat(131))(header);
      field(476, "00000000001\x0000000000002\0")(header);
      field(508, "tar\0")(header);
    };
    expect(brief(tar({ path: "n", patch: star }))).toEqual([`${"p".repeat(131)}/n=`]);
  });

  it("gives v7 headers no prefix and no devices", () => {
    expect(brief(tar({ path: "n", content: "x", format: "v7", patch: field(345, "junk") }))).toEqual(["n=x"]);
    const [device] = read(tar({ path: "n", type: "char", format: "v7", patch: field(329, "0000001\x000000003\0") }));
    expect(device).toMatchObject({ typeflag: "3", deviceMajor: 0, deviceMinor: 0 });
  });

  it("reads a GNU header's times as times, and as a prefix only where they are no numbers", () => {
    const times = field(345, "00000000001\x0000000000002\0");
    expect(brief(tar({ path: "n", format: "gnu", patch: times }))).toEqual(["n="]);
    expect(brief(tar({ path: "n", format: "gnu", patch: field(345, "old/go/writer") }))).toEqual(["old/go/writer/n="]);
  });

  it("accepts unsigned and signed checksums, and no others", () => {
    const name = Buffer.from([0xc3, 0xa9]);
    const block = tarStream([{ path: name }], { end: "none" });
    const stored = Number.parseInt(block.toString("latin1", 148, 154), 8);
    const signed = stored - 2 * 256;
    expect(read(tarStream([{ path: name }]))).toHaveLength(1);
    expect(read(tarStream([{ path: name, checksum: signed }]))).toHaveLength(1);
    expect(failure(tarStream([{ path: name, checksum: stored + 1 }]))).toBe(
      "LAYER_TAR_INVALID: a header's checksum is wrong",
    );
  });

  it("ends a name at its first NUL, or at the field's end", () => {
    expect(brief(tar({ path: "abc\0def" }))).toEqual(["abc="]);
    const full = "n".repeat(100);
    expect(brief(tar({ path: full, content: "x" }))).toEqual([`${full}=x`]);
  });
});

describe("B9: numbers", () => {
  const uid = (bytes: Buffer | string) => read(tar({ path: "n", patch: field(108, bytes) }))[0]?.uid;

  it.each([
    ["octal, ended by NUL", "0000017\0", 15],
    ["octal, ended by a space", "0000017 ", 15],
    ["octal that fills the field", "00000017", 15],
    ["leading spaces", "     17\0", 15],
    ["empty", "\0\0\0\0\0\0\0\0", 0],
    ["only spaces", "        ", 0],
    ["base-256", Buffer.from([0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]), 3_000_000],
    ["negative base-256", Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), -2],
  ])("%s", (_, bytes, expected) => {
    expect(uid(bytes)).toBe(expected);
  });

  it.each([
    ["digits that are not octal", "0000018\0"],
    ["signs", "-000017\0"],
    ["letters", "0x11\0\0\0\0"],
  ])("refuses %s", (_, bytes) => {
    expect(failure(tar({ path: "n", patch: field(108, bytes) }))).toBe(
      "LAYER_TAR_INVALID: a number in a header is not octal",
    );
  });

  it("refuses negative sizes, in each of their forms", () => {
    const negative = Buffer.alloc(12, 0xff);
    for (const hostile of [
      tar({ path: "n", patch: field(124, negative) }),
      tar({ path: "n", pax: { size: "-1" } }),
      tar({ path: "n", typeflag: "L", patch: field(124, negative) }),
      tar({
        path: "n",
        pax: [
          ["GNU.sparse.major", "0"],
          ["GNU.sparse.minor", "1"],
          ["GNU.sparse.size", "-1"],
        ],
      }),
      tar({ path: "n", typeflag: "S", format: "gnu", patch: field(483, negative) }),
    ]) {
      expect(failure(hostile)).toBe("LAYER_TAR_INVALID: a size is negative");
    }
  });

  it("refuses what no number can hold", () => {
    expect(failure(tar({ path: "n", patch: field(124, Buffer.from([0x80, 0x7f, ...Buffer.alloc(10, 0xff)])) }))).toBe(
      "LAYER_TAR_INVALID: a number in a header is out of range",
    );
    expect(failure(tar({ path: "n", pax: { size: "99999999999999999999" } }))).toMatch(/^LAYER_TAR_INVALID/);
  });

  it("never believes a size: exabytes of nothing are a cut stream, not an allocation", () => {
    for (const exabytes of [{ declaredSize: 2n ** 52n }, { pax: { size: String(2 ** 52) } }]) {
      expect(failure(tarStream([{ path: "n", content: "x", ...exabytes }]))).toBe(
        "LAYER_TAR_INVALID: the stream ends inside an entry",
      );
    }
  });
});

describe("B3: types", () => {
  it.each(["0", "\0", "7"])("type %j is a file", (typeflag) => {
    expect(read(tar({ path: "n", content: "x", typeflag }, after))).toMatchObject([
      { name: "n", content: "x" },
      { name: "after", content: "A" },
    ]);
  });

  it("NUL with a slash at the end of the name is a directory, `0` with one a file", () => {
    expect(read(tar({ path: "d/", typeflag: "\0" }))[0]).toMatchObject({ typeflag: "5", name: "d/" });
    expect(read(tar({ path: "d/", typeflag: "0", content: "x" }))[0]).toMatchObject({ typeflag: "0", content: "x" });
    // The name that counts is the one after all extended headers.
    expect(read(tar({ path: "d", typeflag: "\0", pax: { path: "long/" } }))[0]).toMatchObject({ typeflag: "5" });
  });

  it.each([
    ["hard link", "1"],
    ["symlink", "2"],
    ["character device", "3"],
    ["block device", "4"],
    ["directory", "5"],
    ["fifo", "6"],
  ])("a %s with a size has no data all the same: the next header follows at once", (_, typeflag) => {
    for (const size of [{ declaredSize: 1000 }, { pax: { size: "1000" } }]) {
      const found = read(tar({ path: "n", typeflag, linkTarget: "t", ...size }, after));
      expect(found).toMatchObject([
        { typeflag, size: 0, content: "" },
        { name: "after", content: "A" },
      ]);
    }
  });

  it.each(["X", "V", "M", "D", "N", "Z", "A"])("type %s, unknown to runtimes, carries data", (typeflag) => {
    expect(read(tar({ path: "n", content: "data", typeflag }, after))).toMatchObject([
      { typeflag, content: "data" },
      { name: "after" },
    ]);
  });

  it("reads devices", () => {
    expect(read(tar({ path: "n", type: "block", device: [259, 70_000] }))[0]).toMatchObject({
      typeflag: "4",
      deviceMajor: 259,
      deviceMinor: 70_000,
    });
  });
});

describe("B4: extended headers", () => {
  it("applies path, linkpath, size, uid, gid, mtime", () => {
    const entries = read(
      tar(
        {
          path: "short",
          content: "12345",
          declaredSize: 0,
          pax: { path: "ü/long", size: "5", uid: "3000000", gid: "4000000", mtime: "1600000000.75" },
        },
        { path: "s", type: "symlink", linkTarget: "t", pax: { linkpath: "target with = and \n in it", mtime: "-1.5" } },
      ),
    );
    expect(entries).toMatchObject([
      { name: Buffer.from("ü/long").toString("latin1"), content: "12345", uid: 3e6, gid: 4e6, mtime: 1_600_000_000 },
      { link: "target with = and \n in it", mtime: -2 },
    ]);
  });

  it("an empty value leaves what the header says", () => {
    expect(
      read(tar({ path: "n", content: "x", uid: 7, mtime: 9, pax: { path: "", size: "", uid: "", mtime: "" } })),
    ).toMatchObject([{ name: "n", content: "x", uid: 7, mtime: 9 }]);
  });

  it("of two headers in a row the second replaces the first altogether", () => {
    const two = tar(raw(paxHeader({ path: "first", uid: "5" })), { path: "n", pax: { gid: "6" } });
    expect(read(two)).toMatchObject([{ name: "n", uid: 0, gid: 6 }]);
  });

  it("of one key twice in a header the last counts", () => {
    const twice = tar({
      path: "n",
      pax: [
        ["path", "one"],
        ["path", "two"],
      ],
    });
    expect(brief(twice)).toEqual(["two="]);
  });

  it("a GNU long name wins over pax, whichever comes first", () => {
    const name = raw(gnuLongHeader("L", "by-L"));
    const link = raw(gnuLongHeader("K", "by-K"));
    const pax = raw(paxHeader({ path: "by-pax", linkpath: "by-pax" }));
    const entry: Spec = { path: "n", type: "symlink", linkTarget: "t" };
    for (const order of [tar(name, link, pax, entry), tar(pax, link, name, entry)]) {
      expect(read(order)).toMatchObject([{ name: "by-L", link: "by-K" }]);
    }
  });

  it("an empty long name changes nothing; data end at the first NUL", () => {
    expect(brief(tar(raw(gnuLongHeader("L", "")), { path: "n" }))).toEqual(["n="]);
    expect(brief(tar(raw(gnuLongHeader("L", "long\0rest")), { path: "n" }))).toEqual(["long="]);
  });

  it("long names and pax values apply to one entry only", () => {
    expect(brief(tar(raw(gnuLongHeader("L", "long")), { path: "a" }, { path: "b" }))).toEqual(["long=", "b="]);
    expect(brief(tar({ path: "a", pax: { path: "long" } }, { path: "b" }))).toEqual(["long=", "b="]);
  });

  it("global headers apply to nothing, and end what stood before them", () => {
    const global = raw(paxHeader({ path: "global", uid: "9", size: "4" }, "g"));
    expect(read(tar(global, { path: "n", content: "x" }))).toMatchObject([{ name: "n", uid: 0, content: "x" }]);
    expect(brief(tar(raw(paxHeader({ path: "lost" })), global, { path: "n" }))).toEqual(["n="]);
    expect(brief(tar(raw(gnuLongHeader("L", "lost")), global, { path: "n" }))).toEqual(["n="]);
  });

  it("an extended header and then nothing is a clean end", () => {
    expect(brief(tar(after, raw(paxHeader({ path: "x" }))))).toEqual(["after=A"]);
    expect(brief(tar(after, raw(gnuLongHeader("L", "x"))))).toEqual(["after=A"]);
    expect(brief(tarStream([after, raw(gnuLongHeader("L", "x"))], { end: "none" }))).toEqual(["after=A"]);
  });

  it("keeps extended attributes: bytes, NULs and all; SCHILY's before libarchive's", () => {
    const capability = Buffer.from([1, 0, 0, 2, 0xff, 0]);
    const [entry] = read(
      tar({
        path: "n",
        pax: [
          ["SCHILY.xattr.security.capability", capability],
          ["LIBARCHIVE.xattr.security.capability", "QUJD"],
          ["LIBARCHIVE.xattr.user.a%20b", Buffer.from("x\0y").toString("base64")],
          ["SCHILY.xattr.user.__proto__", "p"],
        ],
      }),
    );
    expect(entry?.xattrs).toEqual(
      new Map([
        ["security.capability", capability.toString("latin1")],
        ["user.a b", "x\0y"],
        ["user.__proto__", "p"],
      ]),
    );
  });

  const body = (bytes: Buffer | string) => tar({ path: "x", typeflag: "x", content: bytes }, { path: "n" });
  it.each([
    ["NULs at the end of the block", "15 path=abcdefg\n".replace("15", "16").concat("\0\0\0")],
    ["no length", "path=x\n"],
    ["a length that is too long", "99 path=x\n"],
    ["a length that is too short", "5 path=x\n"],
    ["no newline at the end", "10 path=xy"],
    ["no equals sign", "8 pathx\n"],
    ["no key", "5 =x\n"],
    ["a length beyond all numbers", `${"9".repeat(30)} path=x\n`],
    ["a negative length", "-9 path=x\n"],
  ])("refuses a record with %s", (_, bytes) => {
    expect(failure(body(bytes))).toMatch(/^LAYER_TAR_INVALID: a pax record/);
  });

  it.each(["path", "linkpath", "uname", "gname", "GNU.sparse.name", "k\0y"])("refuses a NUL in %j", (key) => {
    const value = key.includes("\0") ? "v" : "a\0b";
    expect(failure(tar({ path: "n", pax: { [key]: value } }))).toBe("LAYER_TAR_INVALID: a pax record holds a NUL");
  });

  it.each([{ uid: "x" }, { mtime: "1e5" }, { mtime: "0x5" }, { size: " 5" }])("refuses %j", (pax) => {
    expect(failure(tar({ path: "n", pax }))).toMatch(/^LAYER_TAR_INVALID/);
  });
});

describe("B5: sparse files", () => {
  const chunks = [
    { offset: 3, data: "abc" },
    { offset: 1000, data: "d".repeat(600) },
    { offset: 5000, data: "" },
  ];
  const expected = Buffer.alloc(5000);
  expected.write("abc", 3);
  expected.fill("d", 1000, 1600);
  const forms: readonly SparseContent["form"][] = ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"];
  const sparse = (form: SparseContent["form"], realSize: number, pieces: SparseContent["chunks"]): Spec => ({
    path: "s",
    sparse: { form, realSize, chunks: pieces },
  });

  it.each(forms)("%s: holes are zeros, whatever the pieces of the stream", (form) => {
    const stream = tar(sparse(form, 5000, chunks), after);
    for (const chunkBytes of [1, 7, 511, 512, 513, stream.length]) {
      const entries = read(stream, { chunkBytes });
      expect(entries).toMatchObject([{ name: "s", size: 5000, typeflag: "0" }, { name: "after" }]);
      expect(entries[0]?.content === expected.toString("latin1")).toBe(true);
    }
  });

  it.each(forms)("%s: more pieces than a header holds", (form) => {
    const many = Array.from({ length: 100 }, (_, index) => ({ offset: index * 10, data: String(index % 10) }));
    const content = Buffer.alloc(1000);
    for (const { offset, data } of many) content.write(data, offset);
    expect(brief(tar(sparse(form, 1000, many), after))).toEqual([`s=${content.toString("latin1")}`, "after=A"]);
  });

  it.each(forms)("%s: nothing but a hole", (form) => {
    expect(read(tar(sparse(form, 70_000, [{ offset: 70_000, data: "" }]), after))).toMatchObject([
      { size: 70_000, content: "\0".repeat(70_000) },
      { name: "after" },
    ]);
  });

  it.each(forms)("%s: refuses overlapping pieces, and ones past the end", (form) => {
    const overlap = [
      { offset: 0, data: "abc" },
      { offset: 2, data: "def" },
    ];
    const message = "LAYER_TAR_INVALID: a sparse map overlaps or runs past the end";
    expect(failure(tar(sparse(form, 10, overlap)))).toBe(message);
    expect(failure(tar(sparse(form, 4, [{ offset: 2, data: "abc" }])))).toBe(message);
  });

  it("refuses data that the map does not tell of, and a map that tells of more", () => {
    const map = (pairs: string, content: string) =>
      tar({
        path: "n",
        content,
        pax: { "GNU.sparse.map": pairs, "GNU.sparse.numblocks": "1", "GNU.sparse.size": "10" },
      });
    expect(brief(map("0,3", "abc"))).toEqual(["n=abc\0\0\0\0\0\0\0"]);
    for (const content of ["ab", "abcd"]) {
      expect(failure(map("0,3", content))).toBe("LAYER_TAR_INVALID: a sparse map does not fit the stored bytes");
    }
  });

  it("takes the real size from `size` first, then `realsize`, else the stored size", () => {
    const sized = (pax: Record<string, string>) =>
      read(
        tar({
          path: "n",
          content: "abc",
          pax: { "GNU.sparse.map": "0,3", "GNU.sparse.numblocks": "1", "GNU.sparse.name": "", ...pax },
        }),
      )[0]?.size;
    expect(sized({ "GNU.sparse.size": "5", "GNU.sparse.realsize": "7" })).toBe(5);
    expect(sized({ "GNU.sparse.realsize": "7" })).toBe(7);
    expect(sized({})).toBe(3);
  });

  it("an unknown version is no sparse file, and its name is not used", () => {
    const version = { "GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.name": "other" };
    expect(brief(tar({ path: "n", content: "x", pax: version }))).toEqual(["n=x"]);
  });

  it.each([
    ["a count that is no number", { "GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "x" }],
    ["no count", { "GNU.sparse.map": "0,1" }],
    ["a wrong count", { "GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "2" }],
    ["an odd map", { "GNU.sparse.map": "0,1,2", "GNU.sparse.numblocks": "1" }],
    ["a map of words", { "GNU.sparse.map": "a,b", "GNU.sparse.numblocks": "1" }],
  ])("refuses %s", (_, pax) => {
    expect(failure(tar({ path: "n", content: "x", pax }))).toMatch(/^LAYER_TAR_INVALID: a sparse map/);
  });

  it("refuses pieces out of order in version 0.0, and sparse directories", () => {
    expect(failure(tar({ path: "n", pax: [["GNU.sparse.numbytes", "1"]] }))).toMatch(/out of order/);
    expect(
      failure(tar({ path: "d", type: "dir", pax: { "GNU.sparse.map": "0,0", "GNU.sparse.numblocks": "1" } })),
    ).toBe("LAYER_TAR_INVALID: what holds no data is said to be sparse");
    expect(failure(tar({ path: "n", typeflag: "S", format: "v7" }))).toMatch(/unknown format/);
  });

  it.each([
    ["no count", "x\n"],
    ["a count without its pieces", "5\n0\n1\n"],
    ["an endless line", "1".repeat(600)],
  ])("1.0: refuses a map with %s", (_, map) => {
    const content = Buffer.concat([Buffer.from(map), Buffer.alloc(1024 - map.length)]);
    const pax = { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10" };
    expect(failure(tar({ path: "n", content, pax }))).toMatch(/^LAYER_TAR_INVALID: a sparse map/);
  });

  it("bounds maps, in each of their forms", () => {
    const limits = { entryHeaderBytesMax: 4096 };
    const many = Array.from({ length: 1000 }, (_, index) => ({ offset: index * 2, data: "x" }));
    for (const form of forms) {
      expect(failure(tar(sparse(form, 3000, many)), { limits })).toBe("LIMIT_EXCEEDED: entryHeaderBytesMax");
    }
    const empty = Buffer.alloc(512);
    empty[504] = 1;
    const endless = tar({ path: "n", typeflag: "S", format: "gnu", patch: (header) => header.fill(1, 482, 483) });
    const stream = Buffer.concat([endless.subarray(0, 512), ...Array(20).fill(empty)]);
    expect(failure(stream, { limits })).toBe("LIMIT_EXCEEDED: entryHeaderBytesMax");
  });
});

describe("B6: the end, and cuts", () => {
  it("what follows two zero blocks is ignored", () => {
    const stream = Buffer.concat([tar(after), tar({ path: "more" }), Buffer.from("rubbish")]);
    expect(brief(stream)).toEqual(["after=A"]);
  });

  it("a single zero block may be the end, but nothing may follow it", () => {
    expect(brief(tarStream([after], { end: "one-block" }))).toEqual(["after=A"]);
    expect(failure(tar(after, raw(Buffer.alloc(512)), after))).toBe(
      "LAYER_TAR_INVALID: a single zero block is followed by something else",
    );
  });

  it("nothing at all, and an end mark alone, are empty layers", () => {
    expect(read(Buffer.alloc(0))).toEqual([]);
    expect(read(Buffer.alloc(1024))).toEqual([]);
    expect(read(Buffer.alloc(10_240))).toEqual([]);
  });

  it("accepts a missing end mark, and a cut in the last padding; refuses every other cut", () => {
    const stream = tarStream([{ path: "a", content: "x".repeat(700) }, after], { end: "none" });
    const clean = new Set([0]);
    for (let at = 512 + 700; at <= 512 + 1024; at++) clean.add(at);
    for (let at = 1536 + 512 + 1; at <= stream.length; at++) clean.add(at);
    for (let at = 0; at <= stream.length; at++) {
      const found = failure(stream.subarray(0, at));
      expect({ at, found }).toEqual({
        at,
        found: clean.has(at) ? "no failure" : "LAYER_TAR_INVALID: the stream ends inside an entry",
      });
    }
  });

  it("refuses cuts inside extended headers and maps, but not in an extended header's padding", () => {
    const long = tarStream([raw(gnuLongHeader("L", "n".repeat(200)))], { end: "none" });
    expect(failure(long.subarray(0, 512 + 100))).toMatch(/ends inside/);
    expect(failure(long.subarray(0, 512 + 300))).toBe("no failure");
    const sparse = tarStream([
      { path: "s", sparse: { form: "pax-1.0", realSize: 9, chunks: [{ offset: 1, data: "x" }] } },
    ]);
    expect(failure(sparse.subarray(0, 1536 + 3))).toMatch(/ends inside/);
  });

  it("says where the fault is", () => {
    const stream = tar(after, { path: "n", checksum: 1 });
    expect(() => read(stream)).toThrowError(
      expect.objectContaining({ details: expect.objectContaining({ layer: "test", offset: expect.any(Number) }) }),
    );
  });
});

describe("G10, G12: limits", () => {
  it("bounds extended headers, paths, entries", () => {
    const limits = { entryHeaderBytesMax: 2000, pathBytesMax: 300, layerEntriesMax: 3 };
    expect(failure(tar({ path: "n", pax: { comment: "c".repeat(3000) } }), { limits })).toBe(
      "LIMIT_EXCEEDED: entryHeaderBytesMax",
    );
    expect(failure(tar(raw(gnuLongHeader("K", "k".repeat(3000))), after), { limits })).toBe(
      "LIMIT_EXCEEDED: entryHeaderBytesMax",
    );
    expect(failure(tar({ path: "p".repeat(301) }), { limits })).toBe("LIMIT_EXCEEDED: pathBytesMax");
    expect(failure(tar({ path: "s", type: "symlink", linkTarget: "p".repeat(301) }), { limits })).toBe(
      "LIMIT_EXCEEDED: pathBytesMax",
    );
    expect(failure(tar(after, after, after), { limits })).toBe("no failure");
    expect(failure(tar(after, after, after, after), { limits })).toBe("LIMIT_EXCEEDED: layerEntriesMax");
  });

  it("refuses by what a header claims, before it holds any of it", () => {
    const claim = tarStream([{ path: "x", typeflag: "x", declaredSize: 2 ** 40 }], { end: "none" });
    expect(failure(claim)).toBe("LIMIT_EXCEEDED: entryHeaderBytesMax");
  });

  it.each([
    ["x", raw(paxHeader({ comment: "c" }))],
    ["g", raw(paxHeader({ comment: "c" }, "g"))],
    ["L", raw(gnuLongHeader("L", "l"))],
    ["empty x", { path: "x", typeflag: "x" }],
  ] as const)("refuses an endless chain of %s", (_, link) => {
    expect(failure(tarStream(Array<Spec>(1001).fill(link)))).toMatch(/^LAYER_TAR_INVALID: too many extended headers/);
    expect(brief(tarStream([...Array<Spec>(999).fill(link), after]))).toHaveLength(1);
  });
});

describe("against tar-stream, on ordinary archives", () => {
  const name = fc
    .array(fc.stringMatching(/^[a-zA-Z0-9ü._-]{1,60}$/), { minLength: 1, maxLength: 6 })
    .map((parts) => parts.join("/"))
    .filter((path) => !path.split("/").some((part) => part === "." || part === ".."));
  const common = {
    path: name,
    mode: fc.integer({ min: 0, max: 0o7777 }),
    // No larger ones: tar-stream ignores what pax says of them.
    uid: fc.integer({ min: 0, max: 2 ** 21 - 1 }),
    gid: fc.integer({ min: 0, max: 2 ** 21 - 1 }),
    mtime: fc.integer({ min: 0, max: 2 ** 33 }),
    format: fc.constantFrom("pax", "gnu"),
  } as const;
  const spec: fc.Arbitrary<Spec> = fc.oneof(
    fc.record({
      ...common,
      type: fc.constant("file" as const),
      content: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
    }),
    fc.record({ ...common, type: fc.constant("dir" as const) }),
    fc.record({ ...common, type: fc.constantFrom("symlink" as const, "hardlink" as const), linkTarget: name }),
  );

  it("reads the same entries, however the stream is cut into pieces", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(spec, { maxLength: 8 }),
        fc.integer({ min: 1, max: 3000 }),
        async (specs, chunkBytes) => {
          const stream = tarStream(specs);
          const ours = read(stream, { chunkBytes }).map((entry) => ({
            name: utf8(entry.name).replace(/\/$/, ""),
            link: utf8(entry.link),
            typeflag: entry.typeflag,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            content: entry.content,
          }));
          expect(ours).toEqual(await readWithTarStream(stream));
        },
      ),
      { numRuns: 60 },
    );
  });

  const flags: Readonly<Record<string, string>> = { file: "0", link: "1", symlink: "2", directory: "5" };
  async function readWithTarStream(stream: Buffer): Promise<object[]> {
    const archive = extract();
    archive.end(stream);
    const entries: object[] = [];
    for await (const entry of archive) {
      const parts: Buffer[] = [];
      for await (const part of entry) parts.push(part as Buffer);
      const { header } = entry;
      entries.push({
        name: header.name.replace(/\/$/, ""),
        link: header.linkname ?? "",
        typeflag: flags[header.type ?? ""],
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        mtime: Math.floor((header.mtime?.getTime() ?? 0) / 1000),
        content: Buffer.concat(parts).toString("latin1"),
      });
    }
    return entries;
  }

  const utf8 = (bytes: string) => Buffer.from(bytes, "latin1").toString();
});
