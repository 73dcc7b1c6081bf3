import { linesOf } from "../text.ts";

/**
 * Fields of an os-release file: shell assignments without expansion. The last of equal names wins, as in a shell.
 *
 * @see https://www.freedesktop.org/software/systemd/man/latest/os-release.html
 */
export function parseOsRelease(text: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const raw of linesOf(text)) {
    const line = raw.trim();
    const equals = line.indexOf("=");
    if (equals <= 0 || line.startsWith("#")) continue;
    const key = line.slice(0, equals);
    if (/^[A-Z_a-z][A-Z_a-z0-9]*$/.test(key)) fields.set(key, unquote(line.slice(equals + 1)));
  }
  return fields;
}

/** Within double quotes and outside of any, a backslash takes the next character as it is; within single quotes nothing is special. */
function unquote(text: string): string {
  let value = "";
  let quote = "";
  for (let at = 0; at < text.length; at += 1) {
    const character = text.charAt(at);
    if (quote === "" && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = "";
    else if (character === "\\" && quote !== "'" && at + 1 < text.length) {
      at += 1;
      value += text.charAt(at);
    } else if (quote === "" && /[\s#;]/.test(character)) break;
    else value += character;
  }
  return value;
}
