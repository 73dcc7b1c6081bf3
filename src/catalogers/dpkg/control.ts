/** Fields of a stanza by lower-case name; a value is all of its lines as they stand, without blanks at its very beginning and end. */
export type Stanza = ReadonlyMap<string, string>;

/**
 * Stanzas of a control file, separated by blank lines; of their fields only those in `wanted` (lower case), so that a stanza of a million fields costs
 * nothing. Lines that are neither field nor continuation are skipped, as are comments.
 *
 * @see deb822(5)
 */
export function* parseStanzas(text: string, wanted: ReadonlySet<string>): Generator<Stanza> {
  let fields = new Map<string, string>();
  let isEmpty = true;
  /** The field that is being read, and where its value begins. */
  let open: { readonly name: string; readonly start: number } | undefined;
  const close = (end: number) => {
    // The first of two equal names counts; dpkg refuses the second.
    if (open !== undefined && !fields.has(open.name)) fields.set(open.name, text.slice(open.start, end).trimEnd());
    open = undefined;
  };
  for (let start = 0; start < text.length; ) {
    const found = text.indexOf("\n", start);
    const end = found < 0 ? text.length : found;
    const first = text.charCodeAt(start);
    if (end === start || isBlank(text, start, end)) {
      close(start);
      if (!isEmpty) yield fields;
      fields = new Map();
      isEmpty = true;
    } else if (first !== SPACE && first !== TAB && first !== HASH) {
      close(start);
      isEmpty = false;
      const colon = text.slice(start, Math.min(end, start + NAME_CHARACTERS_MAX)).indexOf(":");
      const name = text.slice(start, start + Math.max(colon, 0)).toLowerCase();
      if (wanted.has(name)) open = { name, start: skipBlanks(text, start + colon + 1) };
    }
    start = end + 1;
  }
  close(text.length);
  if (!isEmpty) yield fields;
}

const TAB = 9;
const SPACE = 32;
const HASH = 35;
/** Longer names are none that is wanted. */
const NAME_CHARACTERS_MAX = 64;

function skipBlanks(text: string, start: number): number {
  let at = start;
  while (text.charCodeAt(at) === SPACE || text.charCodeAt(at) === TAB) at += 1;
  return at;
}

/** Blanks and the CR of a CRLF alone. */
function isBlank(text: string, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    const code = text.charCodeAt(at);
    if (code !== SPACE && code !== TAB && code !== 13) return false;
  }
  return true;
}
