import type { OwnedFile } from "../../layer/index.ts";
import { OwnedFiles, type ProblemList, present } from "../record.ts";
import { fieldText, imagePath, linesOf, nameText, wholeNumber } from "../text.ts";
import { parseStanzas, type Stanza } from "./control.ts";

/** A package as dpkg's database has it. */
export type DpkgPackage = {
  readonly name: string;
  readonly version: string;
  readonly architecture?: string;
  /** The last word of `Status`; `installed` in a `status.d` file, which has none. */
  readonly state: string;
  /** `Multi-Arch: same`: several architectures of it can be installed at once. */
  readonly isCoinstallable?: true;
  /** As the field says; absent if the source has the package's own name and version. */
  readonly source?: { readonly name: string; readonly version?: string };
  readonly sizeBytes?: number;
  readonly maintainer?: string;
  readonly description?: string;
  readonly homepage?: string;
};

const FIELDS: ReadonlySet<string> = new Set([
  "package",
  "status",
  "version",
  "architecture",
  "multi-arch",
  "source",
  "installed-size",
  "maintainer",
  "description",
  "homepage",
  "conffiles",
]);

/** Whether files of a package in this state may be there: in every state but two. */
export function hasFilesInState(state: string): boolean {
  return state !== "not-installed" && state !== "config-files";
}

/**
 * Packages of a `status` file, of a journal entry in `updates`, or (with `stateWithoutStatus`) of a file in `status.d`; their configuration files
 * as owned files. Only the state says whether a package is installed: want `deinstall` with state `installed` is what a removal in the future
 * looks like.
 */
export function* parseStatus(
  text: string,
  stateWithoutStatus: string,
  problems: ProblemList,
): Generator<{ package: DpkgPackage; files: readonly OwnedFile[] }> {
  for (const stanza of parseStanzas(text, FIELDS)) {
    const name = nameText(stanza.get("package"));
    if (name === undefined || name.includes("/")) {
      problems.add("a stanza without a usable package name was left out");
      continue;
    }
    const state = stanza.get("status")?.split(/\s+/).at(2) ?? stateWithoutStatus;
    const version = nameText(stanza.get("version"));
    if (version === undefined && hasFilesInState(state)) {
      problems.add(`${name} has no usable version and was left out`);
      continue;
    }
    const value = present<DpkgPackage>({
      name,
      version: version ?? "",
      architecture: nameText(stanza.get("architecture")),
      state,
      isCoinstallable: stanza.get("multi-arch")?.toLowerCase() === "same" ? true : undefined,
      source: parseSource(stanza.get("source")),
      sizeBytes: kibibytes(stanza.get("installed-size")),
      maintainer: fieldText(stanza.get("maintainer")),
      description: fieldText(stanza.get("description")?.split("\n", 1)[0]),
      homepage: fieldText(stanza.get("homepage")),
    });
    yield { package: value, files: parseConffiles(stanza) };
  }
}

function kibibytes(text: string | undefined): number | undefined {
  const number = wholeNumber(text);
  return number === undefined || number > Number.MAX_SAFE_INTEGER / 1024 ? undefined : number * 1024;
}

/** `name` or `name (version)`. */
function parseSource(text: string | undefined): { readonly name: string; readonly version?: string } | undefined {
  if (text === undefined) return undefined;
  const open = text.indexOf("(");
  const name = nameText(open < 0 ? text : text.slice(0, open));
  const close = text.indexOf(")", open);
  const version = open < 0 || close < 0 ? undefined : nameText(text.slice(open + 1, close));
  return name === undefined ? undefined : present<{ name: string; version?: string }>({ name, version });
}

/**
 * Lines ` PATH MD5[ obsolete][ remove-on-upgrade]`; the path may hold blanks. `newconffile` stands where there is no digest yet; a file to be
 * removed on upgrade is not the package's any more.
 */
function parseConffiles(stanza: Stanza): readonly OwnedFile[] {
  const files = new OwnedFiles();
  for (const line of linesOf(stanza.get("conffiles") ?? "")) {
    const words = line.trim().split(" ");
    let isLeaving = false;
    while (words.length > 2 && (words.at(-1) === "obsolete" || words.at(-1) === "remove-on-upgrade")) {
      if (words.pop() === "remove-on-upgrade") isLeaving = true;
    }
    const digest = words.pop() ?? "";
    const path = imagePath(words.join(" "));
    if (path === undefined || isLeaving) continue;
    const isDigest = /^[0-9a-f]{32}$/.test(digest);
    if (!isDigest && digest !== "newconffile") continue;
    files.add(present<OwnedFile>({ path, digest: isDigest ? `md5:${digest}` : undefined, isConfiguration: true }));
  }
  return files.list;
}
