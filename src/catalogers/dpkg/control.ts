import { linesOf } from "../text.ts";

/** Fields of a stanza by lower-case name; continuation lines follow the first line after a line feed each, without their first blank. */
export type Stanza = ReadonlyMap<string, string>;

/**
 * Stanzas of a control file, separated by blank lines. Lines that are neither field nor continuation are skipped, as are comments.
 *
 * @see deb822(5)
 */
export function* parseStanzas(text: string): Generator<Stanza> {
  let fields = new Map<string, string[]>();
  let open: string[] | undefined;
  for (const line of linesOf(text)) {
    const first = line.charCodeAt(0);
    if (line === "" || line.trim() === "") {
      if (fields.size > 0) yield joined(fields);
      fields = new Map();
      open = undefined;
    } else if (first === 32 || first === 9) open?.push(line.slice(1));
    else if (first !== 35) {
      const colon = line.indexOf(":");
      open = colon > 0 ? [line.slice(colon + 1).trim()] : undefined;
      // The first of two equal names counts, as for dpkg, which refuses the second.
      const name = line.slice(0, colon).toLowerCase();
      if (open !== undefined && !fields.has(name)) fields.set(name, open);
    }
  }
  if (fields.size > 0) yield joined(fields);
}

function joined(fields: ReadonlyMap<string, string[]>): Stanza {
  return new Map([...fields].map(([name, lines]) => [name, lines.join("\n")]));
}
