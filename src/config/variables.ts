/**
 * References to variables, `${NAME}`. A name may have any characters but quotes, braces and line ends, and some of them mean something to YAML. So before a
 * file is parsed, each reference is replaced by as many characters for private use, which mean nothing to it; all else stays where it is.
 */

const start = "\ue000\ue000";
const end = "\ue001";
/** What stands for the ASCII characters of a name. */
const offset = 0xe100;

/** Characters that stand for something here, and so may not stand in a file. */
export const reservedCharacters = "\\ue000\\ue001\\ue100-\\ue17f";

const reference = /\ue000\ue000([^\ue001]*)\ue001/g;

export function markReferences(text: string): string {
  return text.replace(/\$\{([^{}"'\r\n]*)\}/g, (_, name: string) => `${start}${shifted(name, offset)}${end}`);
}

/** The text as it was written. */
export function unmarkReferences(text: string): string {
  return replaceReferences(text, (name) => `\${${name}}`);
}

export function replaceReferences(text: string, replace: (name: string) => string): string {
  return text.replace(reference, (_, name: string) => replace(shifted(name, -offset)));
}

/** Whether a marked text is one reference and nothing else. */
export function isReference(text: string): boolean {
  return text.startsWith(start) && text.indexOf(end) === text.length - 1;
}

/** What looks like a reference and was not marked: a name over several lines, or with quotes in it. */
export function hasStrayReference(text: string): boolean {
  const at = text.indexOf("${");
  return at !== -1 && text.includes("}", at);
}

function shifted(name: string, by: number): string {
  // ASCII, and what stands for it.
  return name.replace(/[^\u0080-\ue0ff\ue180-\uffff]/g, (character) =>
    String.fromCharCode(character.charCodeAt(0) + by),
  );
}
