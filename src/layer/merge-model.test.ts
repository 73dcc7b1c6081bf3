/**
 * Resolving and merging layers against a model that is plain to see: trees in memory, entries applied one after another. Names are few, so that
 * they meet: parents that are links, names given twice, files where directories were, hard links to what is gone.
 */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import type { TarEntry } from "../../test/images/builder.ts";
import { squash } from "../../test/layers/squash.ts";

type Step =
  | { readonly kind: "file"; readonly path: string; readonly content: string }
  | { readonly kind: "dir"; readonly path: string; readonly mode: number }
  | { readonly kind: "symlink" | "hardlink"; readonly path: string; readonly target: string }
  | { readonly kind: "whiteout" | "opaque"; readonly path: string };

const hopsMax = 40;
const lowerHopsMax = 8;

/** What a layer says of a path. `lower`: a hard link to a path of the layers below. `broken`: a hard link to nothing; it hides what lies below it. */
type Node =
  | { readonly type: "file"; readonly content: string }
  | { readonly type: "dir"; readonly mode: number }
  | { readonly type: "symlink"; readonly target: string; readonly isHardlink?: true }
  | { readonly type: "lower"; readonly target: string }
  | { readonly type: "broken" };

interface Layer {
  readonly nodes: Map<string, Node>;
  readonly whiteouts: Set<string>;
  readonly opaques: Set<string>;
  /** An entry that came through a symlink took a symlink's place: what came through that one later is resolved with what it was before. */
  isTangled: boolean;
}

const ancestorsOf = (path: string) =>
  path
    .split("/")
    .slice(0, -1)
    .map((_, index, parts) => parts.slice(0, index + 1).join("/"));
const isBelow = (path: string, directory: string) => directory === "" || path.startsWith(`${directory}/`);

function clean(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}

function removeBelow(tree: Map<string, unknown>, directory: string): void {
  for (const path of tree.keys()) if (isBelow(path, directory)) tree.delete(path);
}

/** Follows symlinks among the parents of `path`, as they are now; `undefined` in a loop. A hard link to a symlink is not followed: it counts as a file. */
function follow(tree: ReadonlyMap<string, Node>, path: string): string | undefined {
  let present = path;
  for (let hops = 0; hops <= hopsMax; hops++) {
    const link = ancestorsOf(present).find((parent) => (tree.get(parent)?.type ?? "dir") !== "dir");
    const node = link === undefined ? undefined : tree.get(link);
    if (link === undefined || node?.type !== "symlink" || node.isHardlink) return present;
    present = clean(leadOf(link, node.target) + present.slice(link.length));
  }
  return undefined;
}

/** Where a symlink leads, not yet cleaned. */
function leadOf(link: string, target: string): string {
  const base = target.startsWith("/") ? "" : link.split("/").slice(0, -1).join("/");
  return `${base}/${target}`;
}

/** A layer in its own pass. */
function applyLayer(steps: readonly Step[]): Layer {
  const nodes = new Map<string, Node>();
  const whiteouts = new Set<string>();
  const opaques = new Set<string>();
  let isTangled = false;
  for (const step of steps) {
    // An opaque mark is a name in its directory.
    const inside = step.kind === "opaque" ? `${step.path}/mark` : step.path;
    const followed = follow(nodes, inside);
    if (followed === undefined) continue;
    const path = step.kind === "opaque" ? (ancestorsOf(followed).at(-1) ?? "") : followed;
    if (step.kind === "whiteout") whiteouts.add(path);
    else if (step.kind === "opaque") opaques.add(path);
    else if (step.kind === "hardlink" && step.target === step.path) continue;
    else {
      const parents = ancestorsOf(path).map((parent) => nodes.get(parent)?.type ?? "dir");
      if (parents.some((type) => type !== "dir")) continue;
      const node = nodeOf(step, nodes);
      if (node === undefined) continue;
      if (followed !== inside && nodes.get(path)?.type === "symlink") isTangled = true;
      if (node.type !== "dir") removeBelow(nodes, path);
      nodes.set(path, node);
    }
  }
  return { nodes, whiteouts, opaques, isTangled };
}

function nodeOf(step: Step, nodes: ReadonlyMap<string, Node>): Node | undefined {
  if (step.kind === "file") return { type: "file", content: step.content };
  if (step.kind === "dir") return { type: "dir", mode: step.mode };
  if (step.kind === "symlink") return { type: "symlink", target: step.target };
  if (step.kind !== "hardlink") return undefined;
  const target = follow(nodes, clean(step.target));
  if (target === undefined) return { type: "broken" };
  const found = nodes.get(target);
  if (found === undefined) return { type: "lower", target };
  if (found.type === "symlink") return { ...found, isHardlink: true };
  return found.type === "dir" ? { type: "broken" } : found;
}

type Merged = { readonly text: string; readonly type: "dir" | "file" | "symlink" };

function mergeModel(layers: readonly Layer[]): Map<string, Merged> {
  const tree = new Map<string, Merged>();
  const implied: Merged = { type: "dir", text: "implied" };
  for (const [index, { nodes, whiteouts, opaques }] of layers.entries()) {
    // Hard links first: what they point to may be whited out by the very layer.
    const own = new Map<string, Merged>();
    for (const [path, node] of nodes) {
      const merged = node.type === "lower" ? lowerTarget(tree, nodes, index, node.target) : describeNode(node, index);
      if (merged === undefined || (node.type === "lower" && merged.type === "dir")) continue;
      own.set(path, node.type === "lower" && merged.type === "file" ? at(merged, index) : merged);
    }
    for (const path of whiteouts) {
      tree.delete(path);
      removeBelow(tree, path);
    }
    for (const path of opaques) removeBelow(tree, path);
    const isOwnFile = (path: string) => own.has(path) && own.get(path)?.type !== "dir";
    const named = [...nodes].filter(([, { type }]) => type !== "broken").map(([path]) => path);
    const marks = [...whiteouts, ...[...opaques].map((path) => (path === "" ? "mark" : `${path}/mark`))];
    for (const path of [...named, ...marks]) {
      for (const parent of ancestorsOf(path)) {
        if (isOwnFile(parent)) break;
        if (tree.get(parent)?.type !== "dir") tree.set(parent, implied);
      }
    }
    for (const [path, merged] of own) {
      if (merged.type !== "dir") removeBelow(tree, path);
      tree.set(path, merged);
    }
  }
  return tree;
}

/** Symlinks of lower layers lead on, to lower layers or to the layer's own nodes that are there without them. */
function lowerTarget(
  tree: ReadonlyMap<string, Merged>,
  own: ReadonlyMap<string, Node>,
  layer: number,
  path: string,
): Merged | undefined {
  let present = path;
  for (let hops = 0; hops <= lowerHopsMax; hops++) {
    const node = hops === 0 ? undefined : own.get(present);
    const merged = node && describeNode(node, layer);
    if (merged) return merged;
    const link = ancestorsOf(present).find((parent) => tree.get(parent)?.type === "symlink");
    if (link === undefined) return tree.get(present);
    present = clean(leadOf(link, tree.get(link)?.text ?? "") + present.slice(link.length));
  }
  return undefined;
}

function describeNode(node: Node, layer: number): Merged | undefined {
  if (node.type === "file") return at({ type: "file", text: node.content }, layer);
  if (node.type === "dir") return { type: "dir", text: `${node.mode.toString(8)} @${layer}` };
  if (node.type === "symlink") return { type: "symlink", text: node.target };
  return undefined;
}

/** Contents are single letters. */
function at({ text }: Merged, layer: number): Merged {
  return { type: "file", text: `${text[0]} @${layer}` };
}

const name = fc.constantFrom("a", "b", "c");
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("/"));
const target = fc.oneof(
  path,
  path.map((text) => `/${text}`),
  path.map((text) => `../${text}`),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("file" as const), path, content: fc.constantFrom(..."uvwxyz") }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("dir" as const), path, mode: fc.constantFrom(0o755, 0o700) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("symlink" as const), path, target }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("hardlink" as const), path, target: path }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("whiteout" as const), path }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("opaque" as const), path: fc.oneof(path, fc.constant("")) }),
  },
);

function entryOf(step: Step): TarEntry {
  switch (step.kind) {
    case "file":
      return { path: step.path, content: step.content };
    case "dir":
      return { path: step.path, type: "dir", mode: step.mode };
    case "symlink":
    case "hardlink":
      return { path: step.path, type: step.kind, linkTarget: step.target };
    case "whiteout":
      return { path: step.path.replace(/[^/]*$/, ".wh.$&") };
    case "opaque":
      return { path: step.path === "" ? ".wh..wh..opq" : `${step.path}/.wh..wh..opq` };
  }
}

const contents = new Map<string, string>();

async function found(layers: readonly (readonly Step[])[]): Promise<Record<string, string>> {
  const { entries } = await squash(layers.map((steps) => steps.map(entryOf)));
  const tree: Record<string, string> = {};
  for (const [path, { node, layer, isImplied }] of entries) {
    if (node.type === "dir") tree[path] = isImplied ? "dir implied" : `dir ${node.mode.toString(8)} @${layer}`;
    else if (node.type === "symlink") tree[path] = `symlink ${node.link}`;
    else tree[path] = `file ${contents.get(node.digests ?? "")} @${layer}`;
  }
  return tree;
}

function modelled(layers: readonly (readonly Step[])[]): Record<string, string> {
  const merged = mergeModel(layers.map(applyLayer));
  return Object.fromEntries([...merged].map(([path, { type, text }]) => [path, `${type} ${text}`]));
}

/** Lower layers of links to directories, and files below them; a higher layer of hard links to names that lead through these. */
const longPath = fc.array(name, { minLength: 2, maxLength: 3 }).map((parts) => parts.join("/"));
const lowerStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant("symlink" as const), path: fc.oneof(name, path), target: fc.oneof(name, target) }),
  fc.record({ kind: fc.constant("file" as const), path: longPath, content: fc.constantFrom(..."uvwxyz") }),
);
const linkStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("hardlink" as const), path, target: longPath }) },
  { weight: 1, arbitrary: step },
);
const linkedLayers = fc
  .tuple(fc.array(lowerStep, { minLength: 3, maxLength: 8 }), fc.array(linkStep, { minLength: 1, maxLength: 5 }))
  .map((layers): Step[][] => layers);

describe("layers, resolved and merged", () => {
  beforeAll(async () => {
    const { entries } = await squash([[..."uvwxyz"].map((letter) => ({ path: letter, content: letter }))]);
    for (const [path, { node }] of entries) contents.set(node.digests ?? "", path);
  });

  it.each([
    ["of any kind", fc.array(fc.array(step, { minLength: 1, maxLength: 7 }), { minLength: 1, maxLength: 4 })],
    ["with hard links through symlinks of lower layers", linkedLayers],
  ])("are what the model says: %s", async (_, layers) => {
    await fc.assert(
      fc.asyncProperty(layers, async (steps) => {
        fc.pre(!steps.some((layer) => applyLayer(layer).isTangled));
        expect(await found(steps)).toEqual(modelled(steps));
      }),
      { numRuns: 300 },
    );
  });
});
