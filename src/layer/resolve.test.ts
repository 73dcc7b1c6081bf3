import { describe, expect, it } from "vitest";
import type { TarEntry } from "../../test/images/builder.ts";
import { analyzeTestLayer, squash } from "../../test/layers/squash.ts";
import { defaultLimits } from "../config/index.ts";

/** More entries than stay in memory. */
const many = Array.from({ length: 12_000 }, (_, index): TarEntry => ({ path: `many/${index}`, content: "" }));

/** `link0` leads to `link1`, and so on to a directory: what lies below `link0` moves once for each. */
function chain(hops: number): TarEntry[] {
  const links = Array.from(
    { length: hops },
    (_, hop): TarEntry => ({
      path: `link${hop}`,
      type: "symlink",
      linkTarget: hop + 1 < hops ? `link${hop + 1}` : "end",
    }),
  );
  return [{ path: "end", type: "dir" }, ...links, { path: "link0/file", content: "x" }];
}

describe("links to directories in a layer with more entries than stay in memory", () => {
  it("move what lies below them, to the last link of forty", async () => {
    const { tree, notes } = await squash([[...many, ...chain(40)]]);
    expect(tree["end/file"]).toMatch(/^file /);
    expect(Object.keys(tree)).toHaveLength(1 + 12_000 + 1 + 40 + 1);
    expect(notes).toEqual([]);
  });

  it("cost temporary bytes for what moves, not for what stays", async () => {
    // Written once, 12,000 entries take about 2 MB, their document included; written for each hop they would take 50.
    const limits = { ...defaultLimits, layerSpillBytesMax: 4 * 1024 * 1024 };
    using layer = await analyzeTestLayer([...many, ...chain(40)], { limits });
    expect(layer.analysis.facts.entries).toBe(12_000 + 1 + 40 + 1);
  });

  it("may not take more than so many temporary bytes", async () => {
    const limits = { ...defaultLimits, layerSpillBytesMax: 512 * 1024 };
    await expect(analyzeTestLayer(many, { limits })).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      details: { limit: "layerSpillBytesMax", max: 512 * 1024 },
    });
  });

  it("move a hard link and its wish for its target together, also where both come to one name", async () => {
    const entries: TarEntry[] = [
      { path: "real", type: "dir" },
      { path: "real/a", content: "a" },
      { path: "link", type: "symlink", linkTarget: "real" },
      { path: "link/b", type: "hardlink", linkTarget: "link/a" },
      { path: "link/a", type: "hardlink", linkTarget: "real/a" },
    ];
    const plain = await squash([entries]);
    const { tree, notes } = await squash([[...many, ...entries]]);
    expect(notes).toEqual(plain.notes);
    for (const path of ["real/a", "real/b"]) expect(tree[path]).toBe(plain.tree[path]);
  });
});
