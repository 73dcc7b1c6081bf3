import { baseOf, type PathKey, parsePathText, pathText } from "./path.ts";
import { textToBytes } from "./path-text.ts";

/**
 * Globs on image paths: `*` any characters but `/`, a double star and slash any directories (also none). Compiled once; most files are told apart by
 * their base name alone, since there are millions of them and a handful of patterns.
 */
export class PathMatcher<T> {
  readonly #byBase = new Map<string, { readonly expression: RegExp; readonly value: T }[]>();
  readonly #bySuffix = new Map<string, { readonly expression: RegExp; readonly value: T }[]>();
  readonly #others: { readonly below: string; readonly expression: RegExp; readonly value: T }[] = [];

  constructor(patterns: Iterable<readonly [glob: string, value: T]>) {
    for (const [glob, value] of patterns) {
      const candidate = { expression: compileGlob(glob), value };
      const base = glob.slice(glob.lastIndexOf("/") + 1);
      const suffix = /^\*(\.[^*]+)$/.exec(base)?.[1];
      if (!base.includes("*")) append(this.#byBase, textToBytes(base), candidate);
      else if (suffix !== undefined) {
        append(this.#bySuffix, textToBytes(suffix.slice(suffix.lastIndexOf("."))), candidate);
      } else this.#others.push({ ...candidate, below: literalDirectory(glob) });
    }
  }

  /** Values of the patterns that fit, each once, in no particular order. */
  match(key: PathKey): readonly T[] {
    const base = baseOf(key);
    const dot = base.lastIndexOf(".");
    const named = this.#byBase.get(base);
    const ending = dot < 0 ? undefined : this.#bySuffix.get(base.slice(dot));
    const others = this.#others.some(({ below }) => key.startsWith(below)) ? this.#others : none;
    if (named === undefined && ending === undefined && others.length === 0) return none;
    const path = pathText(key);
    let found: T[] | undefined;
    for (const list of [named, ending, others]) {
      for (const { expression, value } of list ?? none) {
        if (expression.test(path) && !found?.includes(value)) {
          found ??= [];
          found.push(value);
        }
      }
    }
    return found ?? none;
  }
}

const none: readonly never[] = [];

function append<V>(map: Map<string, V[]>, key: string, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

/** The key of the directories at the beginning of a glob that hold no wildcard, as all keys below them begin. */
function literalDirectory(glob: string): string {
  const end = glob.lastIndexOf("/", glob.search(/\*|$/));
  return end < 0 ? "" : `${parsePathText(glob.slice(0, end))}\0`;
}

function compileGlob(glob: string): RegExp {
  const source = glob
    .split(/(\*\*\/|\*)/)
    .map((part) =>
      part === "**/" ? "(?:[^/]+/)*" : part === "*" ? "[^/]*" : part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"),
    )
    .join("");
  return new RegExp(`^${source}$`, "s");
}
