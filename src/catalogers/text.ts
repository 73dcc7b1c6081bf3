/** Lines without their line ends (LF or CRLF); the text after the last LF counts if it is not empty. One pass, whatever the line lengths. */
export function* linesOf(text: string): Generator<string> {
  let start = 0;
  while (start < text.length) {
    let end = text.indexOf("\n", start);
    if (end < 0) end = text.length;
    yield text.charCodeAt(end - 1) === 13 && end > start ? text.slice(start, end - 1) : text.slice(start, end);
    start = end + 1;
  }
}

const FIELD_CHARACTERS_MAX = 4096;
const NAME_CHARACTERS_MAX = 512;

/**
 * A field for people to read: well-formed Unicode, trimmed, cut at 4,096 characters, control characters (which a terminal or a database would
 * stumble over) replaced; `undefined` if nothing is left.
 */
export function fieldText(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const text = replaceControls(value.slice(0, FIELD_CHARACTERS_MAX)).toWellFormed().trim();
  return text === "" ? undefined : text;
}

/** A name, version or architecture: one short line of printable text, or `undefined`: such a record cannot be told from others. */
export function nameText(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  if (text === "" || text.length > NAME_CHARACTERS_MAX || !text.isWellFormed()) return undefined;
  return replaceControls(text) === text && !text.includes("\n") && !text.includes("\t") ? text : undefined;
}

function replaceControls(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "\ufffd");
}

/** `1 line`, `2 lines`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** A decimal number of at most 15 digits, so exact; `undefined` for anything else. */
export function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

const PATH_CHARACTERS_MAX = 4096;

/**
 * A path from a package database as an image path: no leading `/` or `./`, no empty, `.` or `..` segments; `undefined` for the root itself and
 * for what no file can be called (longer than Linux allows, NUL, leaving the root).
 */
export function imagePath(path: string): string | undefined {
  if (path.length > PATH_CHARACTERS_MAX || path.includes("\0")) return undefined;
  const relative = path.startsWith("/") ? path.slice(1) : path;
  if (!needsNormalizing(relative)) return relative;
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "" || segment === ".") continue;
    if (segment !== "..") segments.push(segment);
    else if (segments.pop() === undefined) return undefined;
  }
  return segments.length === 0 ? undefined : segments.join("/");
}

function needsNormalizing(path: string): boolean {
  return (
    path === "" ||
    path.startsWith("/") ||
    path.endsWith("/") ||
    path.includes("//") ||
    /(?:^|\/)\.\.?(?:\/|$)/.test(path)
  );
}
