import { analyzerPlace, objectStorePlace } from "./configuration.ts";
import { invalid, isEmpty, type Place } from "./interpret.ts";
import { nearestKey, visibleKey } from "./keys.ts";
import { isOriginalKey } from "./original-keys.ts";
import type { MapEntry, MapTree, Tree } from "./yaml-tree.ts";

const catalog = "services.catalog";

/** Keys that mean the same wherever they stand, with the place where they count. Elsewhere they are a mistake, never a silent default. */
const rightPlaces: ReadonlyMap<string, string> = new Map([
  ["object_store", objectStorePlace],
  ["analysis_archive", `${catalog}.analysis_archive`],
  ["other_object_stores", `${catalog}.other_object_stores`],
  ["storage_driver", `${objectStorePlace}.storage_driver`],
  ["db_connect", "credentials.database.db_connect"],
  ["layer_cache_enable", `${analyzerPlace}.layer_cache_enable`],
  ["layer_cache_max_gigabytes", `${analyzerPlace}.layer_cache_max_gigabytes`],
]);

/** Names that mean something in these maps; what is nearly one of them is a mistake. */
const namesIn: Readonly<Record<string, readonly string[]>> = {
  "": ["services", "credentials"],
  services: ["catalog", "analyzer"],
  credentials: ["database"],
  [catalog]: [
    "object_store",
    "analysis_archive",
    "archive",
    "other_object_stores",
    "archive_driver",
    "archive_data_dir",
  ],
  [analyzerPlace]: ["layer_cache_enable", "layer_cache_max_gigabytes"],
};

/** How many keys a warning names. */
const NAMED_MAX = 40;

interface Warning {
  readonly line: number;
  readonly text: string;
}

interface Found {
  readonly line: number;
  readonly name: string;
}

/**
 * Judges the keys that nothing has read: storage sections at a wrong level are errors, the others are named in a warning.
 * @param understood dotted paths of keys that were read, with all that is below them
 * @throws StowageError `CONFIG_INVALID`
 */
export function judgeRest(root: MapTree, understood: ReadonlySet<string>, file: string): readonly Warning[] {
  const meaningless: Found[] = [];
  const unknown: Found[] = [];
  const judge = (tree: MapTree, path: readonly string[]): void => {
    for (const [key, entry] of tree.entries) {
      const here = [...path, key];
      const dotted = here.join(".");
      if (understood.has(dotted)) continue;
      const shown = [
        ...path,
        visibleKey(key, !isEmpty(entry.value), [...rightPlaces.keys(), ...(namesIn[path.join(".")] ?? [])]),
      ].join(".");
      refuseMisplaced(key, entry, path, { file, key: shown, line: entry.line });
      if (isContainer(here)) {
        // Anything but a map was refused where it was read.
        if (entry.value.kind === "map") judge(entry.value, here);
      } else {
        refuseWithin(entry.value, { file, key: shown, line: entry.line });
        (isOriginalKey(here) ? meaningless : unknown).push({ line: entry.line, name: shown });
      }
    }
  };
  judge(root, []);
  return [
    ...warningOf("keys that have no meaning here", meaningless),
    ...warningOf("keys that are not known", unknown),
  ];
}

/** Maps that hold keys which mean something. */
function isContainer(path: readonly string[]): boolean {
  const [top, second, third] = path;
  if (top === "services")
    return path.length === 1 || (path.length === 2 && (second === "catalog" || second === "analyzer"));
  if (top !== "credentials") return false;
  return (
    path.length === 1 ||
    (second === "database" && (path.length === 2 || (path.length === 3 && third === "db_connect_args")))
  );
}

function refuseMisplaced(key: string, { value }: MapEntry, path: readonly string[], at: Place): void {
  const parent = path.join(".");
  const right = rightPlaces.get(key) ?? rightPlaceOfOther(key, value, parent);
  if (right !== undefined) {
    throw invalid(at, "this is not the place of this key: it has no effect here", `move it to ${right}`);
  }
  if (isOriginalKey([...path, key]) || isContainer([...path, key])) return;
  const nearest = nearestKey(key, namesIn[parent] ?? []);
  if (nearest !== undefined) throw invalid(at, "this key is not known", `did you mean ${nearest}?`);
}

/** `archive` and `compression` are words that may stand for other things; a section of these names is none of them. */
function rightPlaceOfOther(key: string, value: Tree, parent: string): string | undefined {
  if (key === "compression" && parent === catalog) return `${objectStorePlace}.compression`;
  const isSection = value.kind === "map" && (value.entries.has("storage_driver") || value.entries.has("compression"));
  return key === "archive" && isSection ? `${catalog}.archive` : undefined;
}

/** The same for whatever depth a section was put at. */
function refuseWithin(tree: Tree, at: Place): void {
  if (tree.kind === "scalar") return;
  if (tree.kind === "list") {
    for (const item of tree.items) refuseWithin(item, { ...at, line: item.line });
    return;
  }
  for (const [key, entry] of tree.entries) {
    const inner = {
      ...at,
      key: `${at.key}.${visibleKey(key, !isEmpty(entry.value), rightPlaces.keys())}`,
      line: entry.line,
    };
    const right = rightPlaces.get(key);
    if (right !== undefined) refuseMisplaced(key, entry, [], inner);
    refuseWithin(entry.value, inner);
  }
}

function warningOf(what: string, found: readonly Found[]): readonly Warning[] {
  const [first] = found;
  if (first === undefined) return [];
  const names = found.slice(0, NAMED_MAX).map(({ name }) => name);
  const more = found.length > NAMED_MAX ? ` and ${found.length - NAMED_MAX} more` : "";
  return [{ line: first.line, text: `${what}: ${names.join(", ")}${more}` }];
}
