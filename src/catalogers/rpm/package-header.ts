import { decodePathText, type OwnedFile } from "../../layer/index.ts";
import { OwnedFiles, type ProblemList, present } from "../record.ts";
import { counted, fieldText, imagePath, nameText } from "../text.ts";
import { type RpmHeader, rpmTag } from "./header.ts";

/** A package as rpm's database has it. */
export type RpmPackage = {
  readonly name: string;
  readonly version: string;
  readonly release: string;
  readonly epoch?: number;
  readonly architecture?: string;
  /** File name of the source package; absent of a source package. */
  readonly sourceRpm?: string;
  readonly license?: string;
  readonly sizeBytes?: number;
  readonly vendor?: string;
  readonly description?: string;
  readonly homepage?: string;
  /** `name:stream:version:context`. */
  readonly modularity?: string;
};

/** The package of a header; `undefined` for keys, which the database keeps as packages, and (with a problem) for what has no name or version. */
export function packageOf(header: RpmHeader, problems: ProblemList): RpmPackage | undefined {
  const name = nameText(header.string(rpmTag.name));
  if (name === "gpg-pubkey") return undefined;
  const version = nameText(header.string(rpmTag.version));
  const release = nameText(header.string(rpmTag.release));
  if (name === undefined || version === undefined || release === undefined) {
    problems.add(`a package without a usable name, version or release was left out (${name ?? "no name"})`);
    return undefined;
  }
  if (header.damaged > 0) problems.add(`${counted(header.damaged, "damaged field")} in ${name}`);
  const field = (tag: number) => fieldText(header.string(tag));
  return present<RpmPackage>({
    name,
    version,
    release,
    epoch: header.numbers(rpmTag.epoch)[0],
    architecture: nameText(header.string(rpmTag.architecture)),
    sourceRpm: nameText(header.string(rpmTag.sourceRpm)),
    license: field(rpmTag.license),
    sizeBytes: safe(header.numbers(rpmTag.longSize)[0] ?? header.numbers(rpmTag.size)[0]),
    vendor: field(rpmTag.vendor) ?? field(rpmTag.packager),
    description: field(rpmTag.summary),
    homepage: field(rpmTag.url),
    modularity: nameText(header.string(rpmTag.modularityLabel)),
  });
}

function safe(value: number | undefined): number | undefined {
  return value !== undefined && Number.isSafeInteger(value) ? value : undefined;
}

/** By the numbers of OpenPGP, extended by rpm; those that can't be said in hex of a length are left out. @see RFC 9580 section 9.5 */
const DIGEST_ALGORITHMS: Readonly<Record<number, { readonly name: string; readonly hexDigits: number }>> = {
  1: { name: "md5", hexDigits: 32 },
  2: { name: "sha1", hexDigits: 40 },
  3: { name: "ripemd160", hexDigits: 40 },
  8: { name: "sha256", hexDigits: 64 },
  9: { name: "sha384", hexDigits: 96 },
  10: { name: "sha512", hexDigits: 128 },
  11: { name: "sha224", hexDigits: 56 },
  12: { name: "sha3-256", hexDigits: 64 },
  14: { name: "sha3-512", hexDigits: 128 },
};
const MD5 = 1;
const FLAG_CONFIGURATION = 1;
const FLAG_GHOST = 64;
const STATE_NORMAL = 0;
const TYPE_MASK = 0o170000;
const TYPE_DIRECTORY = 0o040000;

/**
 * Files of a package that are on disk as described: in state normal. Replaced files, those not installed, on a net share or of another word size
 * ("wrong colour") are not.
 */
export function filesOf(header: RpmHeader, problems: ProblemList): readonly OwnedFile[] {
  const paths = filePaths(header);
  const states = header.numbers(rpmTag.fileStates);
  const modes = header.numbers(rpmTag.fileModes);
  const flags = header.numbers(rpmTag.fileFlags);
  const longSizes = header.numbers(rpmTag.longFileSizes);
  const sizes = longSizes.length > 0 ? longSizes : header.numbers(rpmTag.fileSizes);
  const digests = header.strings(rpmTag.fileDigests);
  const targets = header.strings(rpmTag.fileLinkTargets);
  const users = header.strings(rpmTag.fileUserNames);
  const groups = header.strings(rpmTag.fileGroupNames);
  const algorithm = DIGEST_ALGORITHMS[header.numbers(rpmTag.fileDigestAlgorithm)[0] ?? MD5];
  const owners = new TextCache();

  const files = new OwnedFiles();
  let unusable = 0;
  for (let index = 0; index < paths.length; index += 1) {
    if ((states[index] ?? STATE_NORMAL) !== STATE_NORMAL) continue;
    const shown = paths.at(index);
    // The root directory itself is nobody's.
    if (shown === "/") continue;
    const path = shown === undefined ? undefined : imagePath(shown);
    if (path === undefined) {
      unusable += 1;
      continue;
    }
    const mode = modes[index];
    const digest = digests.at(index)?.toString("latin1").toLowerCase() ?? "";
    const target = targets.at(index);
    const file = present<OwnedFile>({
      path,
      digest:
        algorithm !== undefined && digest.length === algorithm.hexDigits && /^[0-9a-f]+$/.test(digest)
          ? `${algorithm.name}:${digest}`
          : undefined,
      mode,
      user: owners.text(users.at(index)),
      group: owners.text(groups.at(index)),
      sizeBytes: safe(sizes[index]),
      isDirectory: mode !== undefined && (mode & TYPE_MASK) === TYPE_DIRECTORY ? true : undefined,
      isConfiguration: ((flags[index] ?? 0) & FLAG_CONFIGURATION) !== 0 ? true : undefined,
      isGhost: ((flags[index] ?? 0) & FLAG_GHOST) !== 0 ? true : undefined,
      linkTarget:
        target === undefined || target.length === 0 || target.length > PATH_BYTES_MAX
          ? undefined
          : decodePathText(target),
    });
    if (!files.add(file)) {
      problems.add("a package owns more files than are kept: the rest was left out");
      break;
    }
  }
  if (unusable > 0) problems.add(`left out ${counted(unusable, "file")} without a usable path`);
  return files.list;
}

interface PathList {
  readonly length: number;
  /** `undefined` for what is no path. */
  at(index: number): string | undefined;
}

/** Longer ones Linux refuses; said before two long names are joined a million times. */
const PATH_BYTES_MAX = 4096;

/** `DIRNAMES[DIRINDEXES[i]] + BASENAMES[i]`, or whole paths in headers of before 1999. Joined one by one: all at once could be far too many. */
function filePaths(header: RpmHeader): PathList {
  const directories = header.strings(rpmTag.directoryNames);
  const indexes = header.numbers(rpmTag.directoryIndexes);
  const isOld = !header.has(rpmTag.baseNames);
  const names = header.strings(isOld ? rpmTag.oldFileNames : rpmTag.baseNames);
  return {
    length: names.length,
    at(index) {
      const directory = isOld ? Buffer.alloc(0) : directories.at(indexes[index] ?? -1);
      const name = names.at(index);
      if (directory === undefined || name === undefined) return undefined;
      if (directory.length + name.length > PATH_BYTES_MAX) return undefined;
      return decodePathText(Buffer.concat([directory, name]));
    },
  };
}

/** Few owners own all files: each name is made text once. */
class TextCache {
  readonly #known = new Map<string, string | undefined>();

  text(bytes: Buffer | undefined): string | undefined {
    if (bytes === undefined || bytes.length > 256) return undefined;
    const key = bytes.toString("latin1");
    if (!this.#known.has(key)) this.#known.set(key, nameText(bytes.toString("utf8")));
    return this.#known.get(key);
  }
}
