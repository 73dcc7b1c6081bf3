/**
 * Paths of image files. Names are bytes; inside this room a path is a {@link PathKey}: its bytes as a latin-1 string, components joined by NUL.
 * No name can hold a NUL, it sorts before every other byte, and so a directory is followed by all that lies below it, in byte order.
 */

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

export function joinPath(parent: PathKey, rest: string): PathKey {
  if (rest === "") return parent;
  return (parent === "" ? rest : `${parent}\0${rest}`) as PathKey;
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

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of latin-1 bytes: UTF-8 where they are; bytes that are not stand as lone surrogates U+DC80–U+DCFF, so that nothing is lost. */
export function bytesToText(bytes: string): string {
  let isAscii = true;
  for (let i = 0; i < bytes.length && isAscii; i++) isAscii = bytes.charCodeAt(i) < 0x80;
  if (isAscii) return bytes;
  const buffer = Buffer.from(bytes, "latin1");
  try {
    return strictUtf8.decode(buffer);
  } catch {
    return escapeInvalid(buffer);
  }
}

function escapeInvalid(buffer: Buffer): string {
  let text = "";
  for (let at = 0; at < buffer.length; ) {
    const first = buffer[at] as number;
    const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;
    try {
      if (length === 0) throw new RangeError("not the start of a sequence");
      text += strictUtf8.decode(buffer.subarray(at, at + length));
      at += length;
    } catch {
      text += String.fromCharCode(0xdc00 + first);
      at += 1;
    }
  }
  return text;
}

/** The inverse of {@link bytesToText}. */
export function textToBytes(text: string): string {
  let bytes = "";
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    if (point < 0x80) bytes += character;
    else if (point >= 0xdc80 && point <= 0xdcff) bytes += String.fromCharCode(point - 0xdc00);
    else bytes += Buffer.from(character, "utf8").toString("latin1");
  }
  return bytes;
}

/** `key` as people and catalogers see it: slashes, text form. */
export function pathText(key: PathKey): string {
  return bytesToText(key.replaceAll("\0", "/"));
}

/** The key of a path in text form. */
export function parsePathText(text: string): PathKey {
  return parsePath(textToBytes(text));
}
