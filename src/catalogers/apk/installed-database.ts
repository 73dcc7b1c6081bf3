import type { OwnedFile } from "../../layer/index.ts";
import { OwnedFiles, type ProblemList, present } from "../record.ts";
import { counted, fieldText, imagePath, linesOf, nameText, wholeNumber } from "../text.ts";

/** A package as apk's database has it. */
export type ApkPackage = {
  readonly name: string;
  readonly version: string;
  readonly architecture?: string;
  readonly sizeBytes?: number;
  readonly description?: string;
  readonly homepage?: string;
  readonly license?: string;
  readonly origin?: string;
  readonly maintainer?: string;
};

/**
 * Reads `lib/apk/db/installed`: records of lines `X:value`, ended by a blank line. Letters not known here are skipped.
 *
 * @param root where the root directory of this database lies: empty, or a path with a trailing slash
 * @see https://wiki.alpinelinux.org/wiki/Apk_spec "Installed Database V2"
 */
export function* parseInstalled(
  text: string,
  root: string,
  problems: ProblemList,
): Generator<{ package: ApkPackage; files: readonly OwnedFile[] }> {
  let record = new Record(root);
  for (const line of linesOf(text)) {
    if (line !== "") {
      record.add(line);
      continue;
    }
    const result = record.finish(problems);
    if (result !== undefined) yield result;
    record = new Record(root);
  }
  const last = record.finish(problems);
  if (last !== undefined) yield last;
}

class Record {
  readonly #root: string;
  readonly #fields = new Map<string, string>();
  readonly #files = new OwnedFiles();
  /** Lines `Z:` and `a:` belong to the file above them, `M:` to the directory: kept open until the next one begins. */
  #open: { -readonly [K in keyof OwnedFile]: OwnedFile[K] } | undefined;
  #directory = "";
  #dropped = 0;
  #lines = 0;

  constructor(root: string) {
    this.#root = root;
  }

  add(line: string): void {
    this.#lines += 1;
    if (line.charCodeAt(1) !== 58) {
      this.#dropped += 1;
      return;
    }
    const value = line.slice(2);
    switch (line.charAt(0)) {
      case "F":
        this.#close();
        this.#directory = value;
        this.#begin(value, true);
        break;
      case "R":
        this.#close();
        this.#begin(this.#directory === "" ? value : `${this.#directory}/${value}`, false);
        break;
      case "M":
      case "a":
        this.#attributes(value);
        break;
      case "Z": {
        const digest = apkChecksum(value, this.#fields.get("f")?.includes("S") === true);
        if (digest !== undefined && this.#open !== undefined) this.#open.digest = digest;
        break;
      }
      default:
        this.#fields.set(line.charAt(0), value);
    }
  }

  #begin(path: string, isDirectory: boolean): void {
    const inRoot = imagePath(path);
    if (inRoot === undefined) {
      // The root directory itself is nobody's.
      if (path !== "") this.#dropped += 1;
      return;
    }
    this.#open = isDirectory
      ? { path: this.#root + inRoot, isDirectory, mode: 0o755, uid: 0, gid: 0 }
      : { path: this.#root + inRoot, mode: 0o644, uid: 0, gid: 0 };
  }

  #attributes(value: string): void {
    const [uid, gid, mode] = value.split(":", 3);
    if (this.#open === undefined) return;
    this.#open.uid = wholeNumber(uid) ?? 0;
    this.#open.gid = wholeNumber(gid) ?? 0;
    if (mode !== undefined && /^[0-7]{1,6}$/.test(mode)) this.#open.mode = Number.parseInt(mode, 8);
  }

  #close(): void {
    if (this.#open !== undefined && !this.#files.add(this.#open)) this.#dropped += 1;
    this.#open = undefined;
  }

  finish(problems: ProblemList): { package: ApkPackage; files: readonly OwnedFile[] } | undefined {
    this.#close();
    if (this.#lines === 0) return undefined;
    const field = (letter: string) => fieldText(this.#fields.get(letter));
    const name = nameText(this.#fields.get("P"));
    const version = nameText(this.#fields.get("V"));
    if (name === undefined || version === undefined) {
      problems.add(`a record without a usable name or version was left out (${field("P") ?? "no name"})`);
      return undefined;
    }
    if (this.#dropped > 0)
      problems.add(`left out ${counted(this.#dropped, "line or path", "lines or paths")} of ${name}`);
    const value = present<ApkPackage>({
      name,
      version,
      architecture: nameText(this.#fields.get("A")),
      sizeBytes: wholeNumber(this.#fields.get("I")),
      description: field("T"),
      homepage: field("U"),
      license: field("L"),
      origin: nameText(this.#fields.get("o")),
      maintainer: field("m"),
    });
    return { package: value, files: this.#files.list };
  }
}

/**
 * apk's checksum as `algorithm:hex`: `Q1`, `Q2` base64 and `X1`, `X2` hex of SHA-1 and SHA-256, or bare hex of MD5. Of a symbolic link it is over
 * the target's text. With `f:` containing `S`, apk-tools 3 writes the first 20 bytes of SHA-256 as `Q1`: told apart as `sha256-160`.
 */
function apkChecksum(text: string, isTruncatedSha256: boolean): string | undefined {
  const kind = text.slice(0, 2);
  let hex: string;
  if (kind === "Q1" || kind === "Q2") hex = base64ToHex(text.slice(2));
  else if (kind === "X1" || kind === "X2") hex = text.slice(2).toLowerCase();
  else return /^[0-9a-f]{32}$/i.test(text) ? `md5:${text.toLowerCase()}` : undefined;
  if (kind.endsWith("2")) return /^[0-9a-f]{64}$/.test(hex) ? `sha256:${hex}` : undefined;
  if (!/^[0-9a-f]{40}$/.test(hex)) return undefined;
  return kind === "Q1" && isTruncatedSha256 ? `sha256-160:${hex}` : `sha1:${hex}`;
}

function base64ToHex(text: string): string {
  return text.length <= 64 && /^[A-Za-z0-9+/]*={0,2}$/.test(text) ? Buffer.from(text, "base64").toString("hex") : "";
}
