import type { JsonValue, OwnedFile } from "../../layer/index.ts";
import { OwnedFiles, type ProblemList, present } from "../record.ts";
import { counted, fieldText, imagePath, linesOf } from "../text.ts";
import { parseStanzas } from "./control.ts";

/** `info/NAME.list`: a path on each line, directories too; the first is `/.`. Nothing but the path is recorded. */
export function parseList(text: string, problems: ProblemList): readonly OwnedFile[] {
  const files = new OwnedFiles();
  let dropped = 0;
  for (const line of linesOf(text)) {
    if (line === "/." || line === "") continue;
    const path = imagePath(line);
    if (path === undefined || !files.add({ path })) dropped += 1;
  }
  if (dropped > 0) problems.add(`left out ${counted(dropped, "path")}`);
  return files.list;
}

/** `NAME.md5sums`: 32 hex digits, two spaces, path without leading slash. Configuration files and links are not in it. */
export function parseMd5sums(text: string, problems: ProblemList): readonly OwnedFile[] {
  const files = new OwnedFiles();
  let dropped = 0;
  for (const line of linesOf(text)) {
    if (line === "") continue;
    const digest = line.slice(0, 32).toLowerCase();
    const path = line.charCodeAt(32) === 32 ? imagePath(line.slice(34)) : undefined;
    if (path === undefined || !/^[0-9a-f]{32}$/.test(digest) || !files.add({ path, digest: `md5:${digest}` }))
      dropped += 1;
  }
  if (dropped > 0) problems.add(`left out ${counted(dropped, "line")}`);
  return files.list;
}

/** A file of all packages but one that lies elsewhere than its package says. */
type Diversion = {
  readonly path: string;
  readonly divertedTo: string;
  /** The package whose file keeps the original path; absent if the administrator diverted it. */
  readonly package?: string;
};

const diversionsMax = 10_000;

/** `diversions`: three lines each, original path, where it went, package or `:`. */
export function parseDiversions(text: string, problems: ProblemList): readonly JsonValue[] {
  const lines = [...linesOf(text)];
  const diversions: Diversion[] = [];
  for (let at = 0; at + 2 < lines.length; at += 3) {
    if (diversions.length === diversionsMax) {
      problems.add(`more than ${diversionsMax} diversions: the rest was left out`);
      break;
    }
    const path = imagePath(lines[at] ?? "");
    const divertedTo = imagePath(lines[at + 1] ?? "");
    if (path === undefined || divertedTo === undefined) continue;
    const owner = lines[at + 2];
    diversions.push(present<Diversion>({ path, divertedTo, package: owner === ":" ? undefined : fieldText(owner) }));
  }
  return diversions;
}

const licensesMax = 100;
const COPYRIGHT_FIELDS: ReadonlySet<string> = new Set(["format", "license"]);

/**
 * Short names of the licences in a machine-readable copyright file, in order of appearance; none if it is not machine-readable.
 *
 * @see https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
 */
export function parseCopyright(text: string): readonly string[] {
  const licenses = new Set<string>();
  let isFirst = true;
  for (const stanza of parseStanzas(text, COPYRIGHT_FIELDS)) {
    if (isFirst && !stanza.has("format")) return [];
    isFirst = false;
    const name = fieldText(stanza.get("license")?.split("\n", 1)[0]);
    // A licence without a short name has its text there.
    if (name !== undefined && name.length <= 200 && licenses.size < licensesMax) licenses.add(name);
  }
  return [...licenses];
}
