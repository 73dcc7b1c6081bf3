import { stat } from "node:fs/promises";
import { StowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { isErrno, openDirectory } from "./directory.ts";
import { parseReference, type Reference } from "./reference.ts";
import type { SourceOptions } from "./source-options.ts";
import type { ImageSource } from "./types.ts";

const EXAMPLES =
  "a source is oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or a reference such as alpine:3.20";

/**
 * Opens the source of images that `text` names: `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`, `docker-archive:FILE[:REF]`, or a registry
 * reference. Where a path has colons itself, the longest path that exists is taken. The registry is not asked before `resolve`.
 * @throws StowageError `INPUT_INVALID`, `IMAGE_SOURCE_UNREADABLE`, `IMAGE_NOT_FOUND`, `IMAGE_AMBIGUOUS`, `IMAGE_MANIFEST_INVALID`,
 * `LIMIT_EXCEEDED`
 */
export async function openSource(text: string, options: SourceOptions, call: Call): Promise<ImageSource> {
  const match = /^(oci|oci-archive|docker-archive):(.*)$/s.exec(text);
  // Each kind of source is loaded when it is asked for: commands that read no image must not wait for the HTTP client and the schemas.
  if (match === null) {
    const reference = await parseRegistrySource(text);
    const { openRegistry } = await import("./registry/source.ts");
    return openRegistry(reference, options);
  }
  const { openArchive } = await import("./archive-file.ts");
  const { openDockerArchive } = await import("./docker-archive.ts");
  const { openLayout } = await import("./layout.ts");
  const [, scheme, rest = ""] = match;
  const { path, ref } = await splitPath(rest, text);
  const files = scheme === "oci" ? await openDirectory(path) : await openArchive(path, options, call);
  try {
    return scheme === "docker-archive"
      ? await openDockerArchive(files, ref, text, options.limits, call)
      : await openLayout(files, ref, text, options.limits, call);
  } catch (error) {
    await files[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * All tags of the repository that a reference names, sorted, each once; whatever tag or digest the reference has means nothing. Names that are no valid
 * tags are left out, and told.
 * @throws StowageError `IMAGE_NOT_FOUND` for a repository that is not there, `ACCESS_DENIED`, `LIMIT_EXCEEDED`, `REGISTRY_*`
 */
export async function listTags(reference: Reference, options: SourceOptions, call: Call): Promise<readonly string[]> {
  const { readTags } = await import("./registry/tags.ts");
  return await readTags(reference, options, call);
}

/** `PATH[:REF]`, where both may have colons: the longest prefix that exists is the path, else everything before the first colon. */
async function splitPath(rest: string, text: string): Promise<{ path: string; ref: string | undefined }> {
  const refuse = (reason: string): never => {
    throw new StowageError("INPUT_INVALID", { what: "source", value: text.slice(0, 300), reason }, { hint: EXAMPLES });
  };
  if (rest === "" || rest.startsWith(":")) refuse("no path is named");
  if (rest.includes("\0")) refuse("a path holds no NUL");
  for (let end = rest.length; end > 0; end = rest.lastIndexOf(":", end - 1)) {
    const path = rest.slice(0, end);
    if (await exists(path)) {
      if (end === rest.length - 1) refuse("nothing follows the colon after the path");
      return { path, ref: end === rest.length ? undefined : rest.slice(end + 1) };
    }
  }
  const colon = rest.indexOf(":");
  return { path: colon === -1 ? rest : rest.slice(0, colon), ref: colon === -1 ? undefined : rest.slice(colon + 1) };
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    // Whatever else is wrong with it is told when it is opened.
    return !isErrno(error, "ENOENT") && !isErrno(error, "ENOTDIR") && !isErrno(error, "ENAMETOOLONG");
  }
}

const schemes = ["oci", "oci-archive", "docker-archive"];

/** A text without one of our schemes is a reference, unless it is a path, a URL, or a scheme with a slip of the pen. */
async function parseRegistrySource(text: string) {
  const refuse = (reason: string, hint = EXAMPLES): never => {
    throw new StowageError("INPUT_INVALID", { what: "source", value: text.slice(0, 300), reason }, { hint });
  };
  if (text === "") refuse("it is empty");
  const url = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text);
  if (url !== null) {
    const [, scheme = "", rest = ""] = url;
    const isRegistry = ["docker", "http", "https", "oci"].includes(scheme.toLowerCase());
    refuse(`${scheme}:// is no scheme of a source`, isRegistry ? `write the reference alone: ${rest}` : EXAMPLES);
  }
  const scheme = /^([^:/@]*):/.exec(text)?.[1];
  if (scheme !== undefined) {
    const lower = scheme.toLowerCase();
    const near = schemes.find((known) => lower === known || (known.length > 3 && editDistance(lower, known) <= 2));
    if (near !== undefined) refuse(`${scheme}: is no scheme of a source`, `did you mean ${near}:? ${EXAMPLES}`);
    if (["docker-daemon", "containers-storage", "docker-dir", "oci-dir", "oci-layout"].includes(lower)) {
      refuse(`${scheme}: is no scheme that stowage knows`);
    }
  }
  if (/^[./~]/.test(text) || text.endsWith(".tar") || text.endsWith(".tar.gz")) {
    const isThere = await exists(text);
    if (isThere || /^[./~]/.test(text)) {
      refuse("it is a path without a scheme", `write oci:${text}, oci-archive:${text} or docker-archive:${text}`);
    }
  }
  return parseReference(text);
}

/** Levenshtein's. */
function editDistance(a: string, b: string): number {
  // Longer texts are no slips of the pen.
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min((above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, change));
    }
  }
  return row[b.length] ?? 0;
}
