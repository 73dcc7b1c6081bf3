import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { TarEntry } from "../../test/images/builder.ts";
import { squash } from "../../test/layers/squash.ts";

const dir = (path: string, mode = 0o755): TarEntry => ({ path, type: "dir", mode });
const file = (path: string, content: string, mode = 0o644): TarEntry => ({ path, content, mode });
const link = (path: string, linkTarget: string): TarEntry => ({ path, type: "symlink", linkTarget });
const hard = (path: string, linkTarget: string, mode = 0o644): TarEntry => ({
  path,
  type: "hardlink",
  linkTarget,
  mode,
});
const md5 = (content: string) => createHash("md5").update(content).digest("hex").slice(0, 8);
const shown = (content: string, layer: number, mode = "644") => `file ${md5(content)} ${mode} @${layer}`;

/** The lower layer of analysis.md, section B. */
const lower: readonly TarEntry[] = [
  link("lib", "usr/lib"),
  dir("usr"),
  dir("usr/lib"),
  file("usr/lib/a", "A"),
  file("usr/lib/b", "B"),
  file("f", "F"),
  dir("d"),
  file("d/x", "X"),
  file("d/y", "Y"),
  dir("tmp", 0o1777),
];
const upper = (...entries: TarEntry[]) => squash([lower, entries]);

describe("merging layers (analysis.md B21–B46)", () => {
  it("gives the lower layer alone as it is", async () => {
    const { tree, notes } = await squash([lower]);
    expect(tree).toEqual({
      d: "dir 755 @0",
      "d/x": shown("X", 0),
      "d/y": shown("Y", 0),
      f: shown("F", 0),
      lib: "-> usr/lib",
      tmp: "dir 1777 @0",
      usr: "dir 755 @0",
      "usr/lib": "dir 755 @0",
      "usr/lib/a": shown("A", 0),
      "usr/lib/b": shown("B", 0),
    });
    expect(notes).toEqual([]);
  });

  it("B21: a whiteout removes the name with all below, whatever type the whiteout has", async () => {
    for (const type of ["file", "dir", "symlink", "char"] as const) {
      const { tree } = await upper({ path: ".wh.d", type, linkTarget: "x" });
      expect(Object.keys(tree).filter((path) => path.startsWith("d"))).toEqual([]);
      expect(tree.f).toBe(shown("F", 0));
    }
  });

  it("B22: a name that the same layer whites out stays, in either order", async () => {
    const first = await upper(file(".wh.f", ""), file("f", "new"));
    expect(first.tree.f).toBe(shown("new", 1));
    expect(first.notes).toEqual([]);
    const after = await upper(file("f", "new"), file(".wh.f", ""));
    expect(after.tree.f).toBe(shown("new", 1));
    expect(after.notes).toEqual(["whiteout-after-entry f"]);
  });

  it("B23: an opaque directory loses its lower children, keeps this layer's, before or after the mark", async () => {
    for (const entries of [
      [dir("d"), file("d/n", "N"), file("d/.wh..wh..opq", "")],
      [dir("d"), file("d/.wh..wh..opq", ""), file("d/n", "N")],
    ]) {
      const { tree } = await squash([lower, entries]);
      expect(tree.d).toBe("dir 755 @1");
      expect(Object.keys(tree).filter((path) => path.startsWith("d/"))).toEqual(["d/n"]);
    }
    const unnamed = await upper(file("d/.wh..wh..opq", ""));
    expect(unnamed.tree.d).toBe("dir 755 @0");
    expect(unnamed.tree["d/x"]).toBeUndefined();
  });

  it("B24: old union file systems' reserved names are ignored; files in them stay", async () => {
    const { tree, notes } = await upper(dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "P"), file(".wh..wh.aufs", ""));
    expect(tree[".wh..wh.plnk/1.2"]).toBe(shown("P", 1));
    expect(tree[".wh..wh.plnk"]).toBe("implied dir 755 @1");
    expect(tree[".wh..wh.aufs"]).toBeUndefined();
    expect(notes).toEqual([
      "inside-whiteout-meta .wh..wh.plnk/1.2",
      "whiteout-meta .wh..wh.aufs",
      "whiteout-meta .wh..wh.plnk",
    ]);
  });

  it("B25: a whiteout of nothing removes nothing", async () => {
    const { tree } = await upper(file(".wh.nothing", ""), file("d/.wh.nothing", ""));
    expect(Object.keys(tree)).toHaveLength(10);
  });

  it("B26: a directory over a directory changes the attributes and keeps both's children", async () => {
    const { tree } = await upper(dir("d", 0o700), file("d/n", "N"));
    expect(tree).toMatchObject({ d: "dir 700 @1", "d/x": shown("X", 0), "d/n": shown("N", 1) });
  });

  it("B27: what is no directory replaces a directory with its children, and a directory replaces it", async () => {
    const over = await upper(file("d", "now a file"));
    expect(over.tree.d).toBe(shown("now a file", 1));
    expect(over.tree["d/x"]).toBeUndefined();
    const back = await squash([lower, [file("d", "now a file")], [dir("d"), file("d/n", "N")]]);
    expect(Object.keys(back.tree).filter((path) => path.startsWith("d"))).toEqual(["d", "d/n"]);
    expect((await upper(dir("f"))).tree.f).toBe("dir 755 @1");
  });

  it("B28: of a repeated name the last wins; directories join", async () => {
    const { tree, notes } = await upper(
      file("n", "1"),
      file("n", "2"),
      dir("e"),
      file("e/1", "1"),
      dir("e", 0o700),
      file("e/2", "2"),
    );
    expect(tree).toMatchObject({ n: shown("2", 1), e: "dir 700 @1", "e/1": shown("1", 1), "e/2": shown("2", 1) });
    expect(notes).toEqual(["name-twice e", "name-twice n"]);
    const gone = await upper(dir("e"), file("e/1", "1"), file("e", "a file"), dir("e"), file("e/2", "2"));
    expect(Object.keys(gone.tree).filter((path) => path.startsWith("e"))).toEqual(["e", "e/2"]);
  });

  it("B29: parents that a layer does not name keep what lower layers say; new ones are 0755 root", async () => {
    const { tree, notes } = await upper(file("tmp/t", "T"), file("d/z", "Z"), file("new/n", "N"));
    expect(tree).toMatchObject({ tmp: "dir 1777 @0", new: "implied dir 755 @1", "new/n": shown("N", 1) });
    // The directory `d` is the same either way.
    expect(notes).toEqual(["directory-not-named tmp"]);
    const named = await squash([lower, [dir("tmp", 0o1777), file("tmp/t", "T")], [file("f", "F")]]);
    expect(named.notes).toEqual([]);
  });

  it("B30: something below a lower file makes a directory of it", async () => {
    const { tree, notes } = await upper(file("f/n", "N"));
    expect(tree).toMatchObject({ f: "implied dir 755 @1", "f/n": shown("N", 1) });
    expect(notes).toEqual(["directory-replaces-file f"]);
  });

  it("B31, B47: something below a lower symlink hides the link behind a directory", async () => {
    const { tree, notes } = await upper(file("lib/x", "X"));
    expect(tree).toMatchObject({ lib: "implied dir 755 @1", "lib/x": shown("X", 1), "usr/lib/a": shown("A", 0) });
    expect(tree["usr/lib/x"]).toBeUndefined();
    expect(notes).toEqual(["directory-hides-symlink lib"]);
  });

  it("B32: a directory entry replaces the lower symlink", async () => {
    const { tree, notes } = await upper(dir("lib"), file("lib/x", "X"));
    expect(tree).toMatchObject({ lib: "dir 755 @1", "lib/x": shown("X", 1), "usr/lib/a": shown("A", 0) });
    expect(notes).toEqual([]);
  });

  it("B33: whiteouts and opaque marks do not reach through a lower symlink", async () => {
    for (const mark of ["lib/.wh.a", "lib/.wh..wh..opq"]) {
      const { tree, notes } = await upper(file(mark, ""));
      expect(tree.lib).toMatch(/^implied dir/);
      expect(tree["usr/lib/a"]).toBe(shown("A", 0));
      expect(notes).toEqual(["directory-hides-symlink lib"]);
    }
  });

  it("B34: hard links to a file of this layer and of a lower layer", async () => {
    const { tree, notes, entries } = await upper(
      file("n", "N"),
      hard("same", "n"),
      hard("lowerlink", "/f"),
      hard("dotted", "./d/x"),
    );
    expect(tree).toMatchObject({ same: shown("N", 1), lowerlink: shown("F", 1), dotted: shown("X", 1) });
    expect(entries.get("same")?.node.link).toBe("n");
    expect(entries.get("lowerlink")?.node.link).toBe("f");
    expect(notes).toEqual(["link-to-lower-layer dotted", "link-to-lower-layer lowerlink"]);
  });

  it("B34: a hard link leads through symlinks of lower layers, to their files and to its own layer's", async () => {
    const links = [link("usr/up", ".."), link("z", "lib"), link("abs", "/z")];
    const { tree, notes, entries } = await squash([
      lower,
      links,
      [
        file("usr/lib/own", "O", 0o600),
        hard("h", "lib/a"),
        hard("far", "usr/up/abs/b"),
        hard("mine", "lib/own", 0o600),
        hard("none", "lib/none"),
        hard("dir", "abs/."),
        hard("later", "lib/../late"),
      ],
      [file(".wh.lib", "")],
    ]);
    expect(tree).toMatchObject({ h: shown("A", 2), far: shown("B", 2), mine: shown("O", 2, "600") });
    for (const path of ["none", "later"]) expect(tree[path]).toBeUndefined();
    expect(tree.dir).toBe("-> /z");
    expect(entries.get("far")?.node.link).toBe("usr\0lib\0b");
    expect(notes).toEqual([
      "link-target-missing later",
      "link-target-missing none",
      "link-through-lower-symlink mine",
      "link-to-lower-layer dir",
      "link-to-lower-layer far",
      "link-to-lower-layer h",
    ]);
  });

  it("B34: links of lower layers that lead a hard link in a circle, or ever further, cost it", async () => {
    const long = Array.from({ length: 30 }, () => "x".repeat(200)).join("/");
    const { tree, notes } = await squash([
      [link("a", "b"), link("b", "a"), link("c", "c/c"), link("long", long)],
      [hard("h", "a/x"), hard("i", "c/x"), hard("j", "long/x"), file("k", "K")],
    ]);
    expect(Object.keys(tree)).toEqual(["a", "b", "c", "k", "long"]);
    expect(notes).toEqual(["link-target-too-far h", "link-target-too-far i", "link-target-too-far j"]);
  });

  it("B35: a link keeps the content when its target is replaced later, in the layer or above", async () => {
    const inLayer = await upper(file("n", "old"), hard("m", "n"), file("n", "new"));
    expect(inLayer.tree).toMatchObject({ n: shown("new", 1), m: shown("old", 1) });
    const above = await squash([lower, [file("n", "old"), hard("m", "n")], [file("n", "new")]]);
    expect(above.tree).toMatchObject({ n: shown("new", 2), m: shown("old", 1) });
  });

  it("B36, B37: a link to a lower file that the layer whites out keeps the content, in either order", async () => {
    for (const entries of [
      [hard("m", "f"), file(".wh.f", "")],
      [file(".wh.f", ""), hard("m", "f")],
    ]) {
      const { tree, notes } = await squash([lower, entries]);
      expect(tree.m).toBe(shown("F", 1));
      expect(tree.f).toBeUndefined();
      expect(notes).toEqual(["link-target-whited-out m"]);
    }
  });

  it("B37: a link without a target is left out and noted; a target later in the layer does not count", async () => {
    const { tree, notes } = await upper(
      hard("m", "nowhere"),
      hard("early", "later"),
      file("later", "L"),
      hard("todir", "d"),
      dir("own"),
      hard("toown", "own"),
    );
    for (const path of ["m", "early", "todir", "toown"]) expect(tree[path]).toBeUndefined();
    expect(notes).toEqual([
      "link-target-directory todir",
      "link-target-directory toown",
      "link-target-later early",
      "link-target-missing m",
    ]);
  });

  it("B38: a hard link to a symlink is a second such symlink", async () => {
    const { tree } = await upper(link("s", "usr"), hard("t", "s"), hard("u", "lib"));
    expect(tree).toMatchObject({ s: "-> usr", t: "-> usr", u: "-> usr/lib" });
  });

  it("B39: the link entry's attributes count for both names, within a layer and across layers", async () => {
    const { tree, notes } = await upper(file("n", "N", 0o600), hard("m", "n", 0o755), hard("g", "f", 0o4711));
    expect(tree).toMatchObject({
      n: shown("N", 1, "755"),
      m: shown("N", 1, "755"),
      g: shown("F", 1, "4711"),
      f: shown("F", 0, "4711"),
    });
    expect(notes).toContain("link-changes-attributes m");
    const same = await upper(file("n", "N", 0o600), hard("m", "n", 0o755), hard("l", "n", 0o600));
    expect(same.notes).toEqual([]);
    const replaced = await squash([lower, [hard("g", "f", 0o4711)], [file("f", "new", 0o600)]]);
    expect(replaced.tree.f).toBe(shown("new", 2, "600"));
  });

  it("B40, B41: after a whiteout of a directory only this layer's children are there, with or without an entry for it", async () => {
    const named = await upper(file(".wh.d", ""), dir("d"), file("d/new", "N"));
    expect(Object.keys(named.tree).filter((path) => path.startsWith("d"))).toEqual(["d", "d/new"]);
    expect(named.notes).toEqual(["whiteout-and-directory d"]);
    const unnamed = await upper(file(".wh.d", ""), file("d/new", "N"), file(".wh.f", ""), file("f2", ""));
    expect(Object.keys(unnamed.tree).filter((path) => path.startsWith("d"))).toEqual(["d", "d/new"]);
    expect(unnamed.notes).toEqual(["whiteout-and-content d"]);
    const named2 = await upper(file(".wh.d", ""), dir("d"), file("d/.wh.e", ""), file("d/e/new", "N"));
    expect(named2.notes).toEqual(["whiteout-and-content d/e", "whiteout-and-directory d"]);
  });

  it("B42: the same with the whiteout last", async () => {
    const { tree, notes } = await upper(dir("d"), file("d/new", "N"), file(".wh.d", ""));
    expect(Object.keys(tree).filter((path) => path.startsWith("d"))).toEqual(["d", "d/new"]);
    expect(notes).toContain("whiteout-after-entry d");
  });

  it("B43: a bare whiteout means nothing", async () => {
    const { tree, notes } = await upper(file("d/.wh.", ""));
    expect(tree["d/x"]).toBe(shown("X", 0));
    expect(notes).toEqual(["bare-whiteout d/.wh."]);
  });

  it("B44: a character device 0/0 is a whiteout, others are devices", async () => {
    const { tree, notes } = await upper(
      { path: "f", type: "char", device: [0, 0] },
      { path: "null", type: "char", device: [1, 3], mode: 0o666 },
    );
    expect(tree.f).toBeUndefined();
    expect(tree.null).toBe("char 666 @1");
    expect(notes).toEqual(["device-whiteout f"]);
  });

  it("B45: of a lower hard link pair the other keeps its content when one is replaced or removed", async () => {
    const pair = [file("n", "N"), hard("m", "n")];
    expect((await squash([pair, [file("n", "new")]])).tree).toMatchObject({ n: shown("new", 1), m: shown("N", 0) });
    expect((await squash([pair, [file(".wh.n", "")]])).tree).toEqual({ m: shown("N", 0) });
  });

  it("B46: symlinked parents of the same layer are followed, inside the root, from the moment the link is there", async () => {
    const { tree } = await squash([
      [
        dir("real"),
        file("late/own", "before the link"),
        link("rel", "real"),
        link("abs", "/real"),
        link("far", "../../../real"),
        link("dangling", "made/here"),
        link("chain", "rel"),
        file("rel/1", "1"),
        file("abs/2", "2"),
        file("far/3", "3"),
        file("dangling/4", "4"),
        file("chain/5", "5"),
        file("rel/.wh.6", ""),
        hard("7", "chain/5"),
      ],
    ]);
    expect(Object.keys(tree).filter((path) => path.startsWith("real/"))).toEqual([
      "real/1",
      "real/2",
      "real/3",
      "real/5",
    ]);
    expect(tree).toMatchObject({
      "made/here/4": shown("4", 0),
      made: "implied dir 755 @0",
      "7": shown("5", 0),
      rel: "-> real",
    });
  });

  it("B46: a loop of links costs the entry, and says so", async () => {
    const { tree, notes } = await squash([[link("a", "b"), link("b", "a"), file("a/x", "X"), file("y", "Y")]]);
    expect(tree).toEqual({ a: "-> b", b: "-> a", y: shown("Y", 0) });
    expect(notes).toEqual([expect.stringMatching(/^symlink-loop [ab]\/x$/)]);
    const linked = await squash([[link("a", "b"), link("b", "a"), hard("h", "a/x")]]);
    expect(linked.notes).toEqual(["symlink-loop h"]);
  });

  it("B46: a directory that the layer reaches through a link before making it is noted once, others are not", async () => {
    const { tree, notes } = await upper(
      dir("real"),
      link("rel", "real"),
      file("rel/deep/1", "1"),
      link("abs", "/usr/lib"),
      file("abs/2", "2"),
      file("abs/3", "3"),
      link("dangling", "made/here"),
      link("chain", "dangling"),
      file("chain/.wh.x", ""),
      file("dangling/4", "4"),
      link("early", "late"),
      file("early/5", "5"),
      dir("late"),
      link("implied", "var"),
      file("var/log/6", "6"),
      file("implied/7", "7"),
      link("root", "/"),
      file("root/8", "8"),
    );
    expect(tree).toMatchObject({ "usr/lib/2": shown("2", 1), "made/here/4": shown("4", 1), "8": shown("8", 1) });
    expect(notes).toEqual(["dangling-directory late", "dangling-directory made/here", "dangling-directory usr/lib"]);
  });

  it("B46: of links above the directory that a link led to, all are followed before it is looked for", async () => {
    const entries = [dir("real"), link("b", "real"), link("a", "b/c"), file("a/x", "X")];
    const missing = await squash([entries]);
    expect(missing.tree["real/c/x"]).toBe(shown("X", 0));
    expect(missing.notes).toEqual(["dangling-directory real/c"]);
    expect((await squash([[dir("real/c"), ...entries]])).notes).toEqual([]);
  });

  it("leaves out what lies below a file of the same layer, and says so", async () => {
    const { tree, notes } = await squash([[file("f", "F"), file("f/x", "X"), file("g/x", "X"), file("g", "G")]]);
    expect(tree).toEqual({ f: shown("F", 0), g: shown("G", 0) });
    expect(notes).toEqual(["below-file f/x"]);
  });

  it("names: leading slashes and dots go, `..` stays inside the root, bytes that are no UTF-8 are kept apart", async () => {
    const { tree, notes } = await squash([
      [
        file("/abs", "1"),
        file("./dot", "2"),
        file("d/../e", "3"),
        file("../../esc", "4"),
        file("a/../../.wh.b", ""),
        { path: Buffer.from([0x6e, 0xff]), content: "5" },
        { path: Buffer.from([0x6e, 0xfe]), content: "6" },
        file("ü", "7"),
      ],
    ]);
    expect(Object.keys(tree).sort()).toEqual(["abs", "dot", "e", "esc", "n\udcfe", "n\udcff", "ü"].sort());
    expect(notes).toEqual(["outside-root .wh.b", "outside-root esc"]);
  });

  it("a link whose target is a link's name in the same layer leads to the same file", async () => {
    const { tree, entries } = await squash([[file("n", "N"), hard("m", "n"), hard("l", "m", 0o600)]]);
    expect(entries.get("l")?.node.link).toBe("n");
    expect(tree).toEqual({ n: shown("N", 0, "600"), m: shown("N", 0, "600"), l: shown("N", 0, "600") });
  });

  it("a link of a higher layer to a link of a lower one leads to the same file", async () => {
    const { tree } = await squash([lower, [hard("m", "f")], [hard("l", "m")], [file(".wh.f", "")]]);
    expect(tree).toMatchObject({ m: shown("F", 1), l: shown("F", 2) });
    expect(tree.f).toBeUndefined();
  });

  it("what is opaque stays so when a file lies further below", async () => {
    const { tree } = await squash([[file("f", "F")], [dir("f"), file("f/x", "X")], [file("f/.wh..wh..opq", "")]]);
    expect(tree).toEqual({ f: "dir 755 @1" });
  });

  it("an opaque mark is followed through a symlinked parent of its layer, as a name would be", async () => {
    const { tree } = await squash([
      [dir("real"), file("real/x", "X")],
      [link("rel", "real"), file("rel/.wh..wh..opq", "")],
    ]);
    expect(tree).toEqual({ real: "dir 755 @0", rel: "-> real" });
  });

  it("B39: a link to a lower file that changes its attributes says so", async () => {
    const { notes } = await upper(hard("g", "f", 0o4711));
    expect(notes).toEqual(["link-changes-attributes g", "link-to-lower-layer g"]);
  });

  it("B39: links of one layer to one lower file share the attributes of the last, in stream order", async () => {
    const { tree } = await upper(hard("z", "f", 0o600), hard("a", "f", 0o640));
    expect(tree).toMatchObject({
      f: shown("F", 0, "640"),
      a: shown("F", 1, "640"),
      z: shown("F", 1, "640"),
    });
  });

  it("what came while a file was above it is left out, though a directory replaces the file later", async () => {
    const { tree, notes } = await squash([[file("f", "F"), file("f/x", "X"), dir("f"), file("f/y", "Y")]]);
    expect(tree).toEqual({ f: "dir 755 @0", "f/y": shown("Y", 0) });
    expect(notes).toEqual(["below-file f/x", "name-twice f"]);
  });

  it("nothing but a directory stands for the root, and whiteouts of `.` and `..` mean nothing", async () => {
    const { tree, notes } = await upper(
      link("./", "usr"),
      hard("/", "f"),
      { path: "./", type: "char", device: [0, 0] },
      file("d/.wh..", ""),
      file("d/.wh...", ""),
    );
    expect(Object.keys(tree)).toHaveLength(10);
    expect(notes).toEqual(["bare-whiteout d/.wh..", "bare-whiteout d/.wh...", ...Array(3).fill("empty-name ")]);
  });
});
