import type { OwnedFile } from "../../layer/index.ts";
import { OwnedFiles, type ProblemList, present } from "../record.ts";
import { counted, imagePath, linesOf, wholeNumber } from "../text.ts";

/**
 * `RECORD` of a dist-info directory: lines `path,sha256=…,size`, paths relative to the directory above it, or absolute.
 *
 * @see https://packaging.python.org/en/latest/specifications/recording-installed-packages/
 */
export function parseRecord(text: string, recordPath: string, problems: ProblemList): readonly OwnedFile[] {
  const site = parentOf(parentOf(recordPath));
  return collect(text, problems, (line) => {
    const [path = "", digest = "", size] = splitCsv(line);
    const inImage = resolvePath(site, path);
    return inImage === undefined
      ? undefined
      : present<OwnedFile>({ path: inImage, digest: recordDigest(digest), sizeBytes: wholeNumber(size) });
  });
}

/** `installed-files.txt` of an egg-info directory: a path on each line, relative to that directory. */
export function parseInstalledFiles(text: string, listPath: string, problems: ProblemList): readonly OwnedFile[] {
  const directory = parentOf(listPath);
  return collect(text, problems, (line) => {
    const path = resolvePath(directory, line);
    return path === undefined ? undefined : { path };
  });
}

function collect(
  text: string,
  problems: ProblemList,
  parse: (line: string) => OwnedFile | undefined,
): readonly OwnedFile[] {
  const files = new OwnedFiles();
  let dropped = 0;
  for (const line of linesOf(text)) {
    if (line === "") continue;
    const file = parse(line);
    if (file === undefined || !files.add(file)) dropped += 1;
  }
  if (dropped > 0) problems.add(`left out ${counted(dropped, "line")}`);
  return files.list;
}

/** Fields of one line; one that holds a comma or quote stands in quotes, which are doubled inside. @see RFC 4180 section 2 */
export function splitCsv(line: string): string[] {
  const fields: string[] = [];
  let at = 0;
  while (at <= line.length && fields.length < 4) {
    if (line.charAt(at) === '"') {
      let value = "";
      for (;;) {
        const end = line.indexOf('"', at + 1);
        value += line.slice(at + 1, end < 0 ? line.length : end);
        at = end < 0 ? line.length : end + 1;
        if (line.charAt(at) !== '"') break;
        value += '"';
      }
      fields.push(value);
      const comma = line.indexOf(",", at);
      at = comma < 0 ? line.length + 1 : comma + 1;
    } else {
      const comma = line.indexOf(",", at);
      fields.push(line.slice(at, comma < 0 ? line.length : comma));
      at = comma < 0 ? line.length + 1 : comma + 1;
    }
  }
  return fields;
}

const DIGEST_BYTES: Readonly<Record<string, number>> = { sha256: 32, sha384: 48, sha512: 64 };

/** `sha256=` and URL-safe base64 without padding, as `sha256:hex`. */
function recordDigest(text: string): string | undefined {
  const equals = text.indexOf("=");
  const algorithm = text.slice(0, Math.max(equals, 0));
  const bytes = Buffer.from(text.slice(equals + 1, equals + 129), "base64url");
  return bytes.length === DIGEST_BYTES[algorithm] ? `${algorithm}:${bytes.toString("hex")}` : undefined;
}

function resolvePath(directory: string, path: string): string | undefined {
  if (path.length > 4096) return undefined;
  return imagePath(path.startsWith("/") ? path : `${directory}/${path}`);
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}
