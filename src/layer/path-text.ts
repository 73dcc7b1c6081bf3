/**
 * The text form of names, which are bytes: UTF-8 where they are, and each byte that is not part of it as a lone surrogate U+DC80–U+DCFF, so that
 * nothing is lost.
 */
import { isUtf8 } from "node:buffer";

/** The text form of bytes. */
export function decodePathText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString("utf8");
  // Cut into pieces that are wholly valid UTF-8 and single bytes that are not.
  const parts: string[] = [];
  let start = 0;
  let at = 0;
  while (at < bytes.length) {
    const length = sequenceLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    if (at > start) parts.push(bytes.toString("utf8", start, at));
    parts.push(String.fromCharCode(0xdc00 + (bytes[at] ?? 0)));
    at += 1;
    start = at;
  }
  parts.push(bytes.toString("utf8", start, at));
  return parts.join("");
}

/** Length of the well-formed UTF-8 sequence at `at`, 0 if there is none. @see Unicode 15, table 3-7 */
function sequenceLength(bytes: Buffer, at: number): number {
  const lead = bytes[at] ?? 0;
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const second = bytes[at + 1] ?? 0;
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (let next = at + 2; next < at + length; next += 1) {
    if (((bytes[next] ?? 0) & 0xc0) !== 0x80) return 0;
  }
  return length;
}

/** The text form of latin-1 bytes. */
export function bytesToText(bytes: string): string {
  return isAscii(bytes) ? bytes : decodePathText(Buffer.from(bytes, "latin1"));
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 0x80) return false;
  return true;
}

/** The inverse of {@link bytesToText}. */
export function textToBytes(text: string): string {
  if (isAscii(text)) return text;
  let bytes = "";
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    if (point < 0x80) bytes += character;
    else if (point >= 0xdc80 && point <= 0xdcff) bytes += String.fromCharCode(point - 0xdc00);
    else bytes += Buffer.from(character, "utf8").toString("latin1");
  }
  return bytes;
}
