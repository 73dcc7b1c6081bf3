import type { AskedPaths, Finding, JsonValue, LayerFinding, OwnedFile } from "../layer/index.ts";
import { counted } from "./text.ts";

/** The fields that have a value: findings are plain JSON, which knows no `undefined`. */
export function present<T extends object>(fields: { readonly [K in keyof T]: T[K] | undefined }): T {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) if (value !== undefined) result[key] = value;
  return result as T;
}

/** A finding about a file; an empty list of owned files is none. */
export function finding(kind: string, path: string, value: JsonValue, files: readonly OwnedFile[] = []): Finding {
  return files.length === 0 ? { kind, path, value } : { kind, path, value, files };
}

/** Broken input, said beside what was found. */
export function problem(path: string, text: string): Finding {
  return { kind: "problem", path, value: { text } };
}

/** Collects what is wrong with one file: the first few in words, then only that there is more. */
export class ProblemList {
  static readonly worded = 20;
  readonly #path: string;
  readonly #texts: string[] = [];
  #more = 0;

  constructor(path: string) {
    this.#path = path;
  }

  add(text: string): void {
    if (this.#texts.length < ProblemList.worded) this.#texts.push(text);
    else this.#more += 1;
  }

  *findings(): Generator<Finding> {
    for (const text of this.#texts) yield problem(this.#path, text);
    if (this.#more > 0) yield problem(this.#path, `${counted(this.#more, "more problem")} in this file`);
  }
}

/** Findings whose file is the one that the squashed view shows: neither replaced nor removed by a higher layer. */
export function visibleFindings(findings: readonly LayerFinding[], image: AskedPaths): LayerFinding[] {
  return findings.filter((finding) => image.layerOf(finding.path) === finding.layer);
}

/** Packages that one cataloger takes from one layer; beyond it the rest is left out with a problem. */
export const packagesMax = 200_000;

const OWNED_CHARACTERS_MAX = 32 * 1024 * 1024;
/** What an entry costs besides its path. */
const OWNED_ENTRY_CHARACTERS = 64;

/**
 * Owned files of one finding. Databases name a directory once and its files by their last name only, so a small hostile one could stand for
 * terabytes of paths: what all entries cost together is bounded (about 250,000 files).
 */
export class OwnedFiles {
  readonly list: OwnedFile[] = [];
  #left = OWNED_CHARACTERS_MAX;

  /** False if there is no room. */
  add(file: OwnedFile): boolean {
    this.#left -= file.path.length + OWNED_ENTRY_CHARACTERS;
    if (this.#left < 0) return false;
    this.list.push(file);
    return true;
  }
}
