/**
 * Paths of image files. Names are bytes; inside this room a path is a {@link PathKey}: its bytes as a latin-1 string, components joined by NUL.
 * No name can hold a NUL, it sorts before every other byte, and so a directory is followed by all that lies below it, in byte order.
 */

import { bytesToText, textToBytes } from "./path-text.ts";

declare const brand: unique symbol;

/** Normalised path from the image's root, components joined by NUL, `""` for the root itself. One character is one byte. */
export type PathKey = string & { readonly [brand]: "PathKey" };

/**
 * The key of a tar name or link target (latin-1, separated by slashes): no leading slash, `.` or `..` left; `..` never leaves the root.
 * @see analysis.md B7 for what seven runtimes do
 */
export function parsePath(name: string): PathKey {
  if (!/(?:^|\/)\.{0,2}(?:\/|$)/.test(name)) return name.replaceAll("/", "\0") as PathKey;
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return parts.join("\0") as PathKey;
}

/** Whether a tar name (latin-1, separated by slashes) has a `..` that would lead out of the root. */
export function leavesRoot(name: string): boolean {
  if (!name.includes("..")) return false;
  let depth = 0;
  for (const part of name.split("/")) {
    if (part === "..") depth--;
    else if (part !== "" && part !== ".") depth++;
    if (depth < 0) return true;
  }
  return false;
}

export function joinPath(parent: PathKey, rest: string): PathKey {
  if (rest === "") return parent;
  return (parent === "" ? rest : `${parent}\0${rest}`) as PathKey;
}

/** Where a symlink at `key` leads (`target` as it stands, latin-1), inside the root. */
export function linkTarget(key: PathKey, target: string): PathKey {
  const base = target.startsWith("/") ? "" : `${parentOf(key).replaceAll("\0", "/")}/`;
  return parsePath(base + target);
}

export function parentOf(key: PathKey): PathKey {
  const end = key.lastIndexOf("\0");
  return (end < 0 ? "" : key.slice(0, end)) as PathKey;
}

export function baseOf(key: PathKey): string {
  return key.slice(key.lastIndexOf("\0") + 1);
}

/** Whether `key` lies below `directory` (not the directory itself). */
export function isBelow(key: PathKey, directory: PathKey): boolean {
  if (directory === "") return key !== "";
  return key.length > directory.length && key.charCodeAt(directory.length) === 0 && key.startsWith(directory);
}

/** `key` as people and catalogers see it: slashes, text form. */
export function pathText(key: PathKey): string {
  return bytesToText(key.replaceAll("\0", "/"));
}

/** The key of a path in text form. */
export function parsePathText(text: string): PathKey {
  return parsePath(textToBytes(text));
}
