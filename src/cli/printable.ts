/**
 * Text that an image's author chose, made safe for a terminal: what would move the cursor, change colours or hide text is shown as an escape.
 * Backslashes are doubled, so two different names never look the same.
 *
 * Bytes that were not UTF-8 (lone surrogates U+DC80–U+DCFF) appear as `\x80`…`\xff`; ASCII control characters as `\n`, `\t` or `\x1b`; other control
 * and format characters, such as bidirectional overrides, as `\u{202e}`.
 */
export function printable(text: string): string {
  // Most names need nothing; a test is cheaper than a replacement.
  return UNSAFE.test(text) ? text.replace(EACH_UNSAFE, escaped) : text;
}

/**
 * JSON text with every character escaped that a terminal might act upon. `JSON.stringify` leaves DEL, the C1 controls and format characters as they are;
 * outside of strings JSON has none of them, so the value stays the same.
 */
export function printableJson(json: string): string {
  return JSON_UNSAFE.test(json) ? json.replace(EACH_JSON_UNSAFE, unicodeEscapes) : json;
}

// Cc control, Cf format (bidirectional overrides, zero-width joiners), Cs lone surrogates, Zl and Zp line and paragraph separators.
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\\]/u;
const EACH_UNSAFE = new RegExp(UNSAFE, "gu");
// Newlines between a document's lines are ours: inside strings they are escaped already. Lone surrogates are, too.
const JSON_UNSAFE = /[\p{Cf}\p{Zl}\p{Zp}\x7f-\x9f]/u;
const EACH_JSON_UNSAFE = new RegExp(JSON_UNSAFE, "gu");

const shortEscapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escaped(character: string): string {
  const short = shortEscapes[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x80) return `\\x${hex(code, 2)}`;
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${hex(code - 0xdc00, 2)}`;
  return `\\u{${hex(code, 4)}}`;
}

function unicodeEscapes(character: string): string {
  return [...Array(character.length).keys()].map((index) => `\\u${hex(character.charCodeAt(index), 4)}`).join("");
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0");
}
