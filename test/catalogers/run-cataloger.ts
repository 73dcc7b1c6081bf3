import { Buffer } from "node:buffer";
import type {
  Cataloger,
  Distribution,
  Finding,
  ImageFindings,
  LayerFinding,
  OwnedFile,
  Package,
  SelectedFile,
} from "../../src/layer/index.ts";

/** Regular files of one layer by path; `null` is a whiteout of that path and all below it. */
export type LayerFiles = Readonly<Record<string, string | Buffer | null>>;

export interface CatalogerRun extends ImageFindings {
  /** Paths that the cataloger asked for, per layer. */
  readonly asked: readonly (readonly string[])[];
  /** Findings per layer, as catalogued. */
  readonly findings: readonly (readonly Finding[])[];
  /** The union of a package's lists by path, as the contract says, sorted by path. */
  owned(found: Package | undefined): OwnedFile[];
}

/** What a cataloger does to an image of these layers: catalog each, store, show the squashed view, reconcile. */
export function runCataloger(
  cataloger: Cataloger,
  layers: readonly LayerFiles[],
  distribution?: Distribution,
): CatalogerRun {
  const matches = globMatcher(cataloger.wants);
  const view = new Map<string, number>();
  const findings: Finding[][] = [];
  const asked: string[][] = [];
  layers.forEach((layer, ordinal) => {
    for (const [path, content] of Object.entries(layer)) {
      if (content !== null) continue;
      for (const lower of view.keys()) if (lower === path || lower.startsWith(`${path}/`)) view.delete(lower);
    }
    const selected = Object.entries(layer)
      .filter(([path, content]) => content !== null && matches(path))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, content]) => selectedFile(path, Buffer.from(content ?? "")));
    for (const file of selected) view.set(file.path, ordinal);
    asked.push(selected.map((file) => file.path));
    findings.push(catalogFiles(cataloger, selected));
  });
  const stored = findings.map((list, layer) =>
    list.map((finding, ordinal): LayerFinding => {
      // Stored documents are JSON: what does not survive it would not survive a stored layer.
      const { files, ...rest } = JSON.parse(JSON.stringify(finding)) as Finding;
      return { ...rest, layer, ordinal, hasFiles: files !== undefined && files.length > 0 };
    }),
  );
  // As in an analysis, the view is asked only for paths in which something was found.
  const known = new Set(stored.flat().map((finding) => finding.path));
  const layerOf = (path: string) => (known.has(path) ? view.get(path) : undefined);
  const image = cataloger.reconcile(stored.flat(), { layerOf }, distribution);
  return {
    ...(JSON.parse(JSON.stringify(image)) as ImageFindings),
    asked,
    findings,
    owned(found) {
      const union = new Map<string, OwnedFile>();
      for (const { layer, ordinal } of found?.owned ?? []) {
        for (const file of findings[layer]?.[ordinal]?.files ?? []) {
          union.set(file.path, { ...union.get(file.path), ...file });
        }
      }
      return [...union.values()].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
    },
  };
}

/** Findings of one layer that holds just these files, sorted by path. */
function catalogFiles(cataloger: Cataloger, files: readonly SelectedFile[]): Finding[] {
  return [
    ...cataloger.catalog({
      [Symbol.iterator]: () => files[Symbol.iterator](),
      get: (path) => files.find((file) => file.path === path),
    }),
  ];
}

function selectedFile(path: string, content: Buffer): SelectedFile {
  return { path, sizeBytes: content.length, mode: 0o644, read: () => content };
}

/** Globs of the contract: double star and slash for any directories, `*` for anything but a slash. */
export function globMatcher(globs: readonly string[]): (path: string) => boolean {
  const expressions = globs.map(
    (glob) =>
      new RegExp(
        `^${glob
          .split(/(\*\*\/|\*)/)
          .map((part) =>
            part === "**/" ? "(?:[^/]+/)*" : part === "*" ? "[^/]*" : part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"),
          )
          .join("")}$`,
        "s",
      ),
  );
  return (path) => expressions.some((expression) => expression.test(path));
}
