/** Names of keys: which one was meant, and which may be shown. */

/** The known key that `key` most probably stands for. */
export function nearestKey(key: string, known: Iterable<string>): string | undefined {
  const wanted = fold(key);
  let nearest: { readonly name: string; readonly distance: number } | undefined;
  for (const name of known) {
    const candidate = fold(name);
    // One that was cut short is near; one that goes on is not: what follows may be a value that has lost its colon.
    const isCutShort = wanted.length >= 5 && candidate.startsWith(wanted);
    const distance = isCutShort ? Math.min(1, candidate.length - wanted.length) : editDistance(wanted, candidate);
    // A third of the letters may be wrong, or it is another word.
    const isNear = distance <= Math.max(1, Math.floor(Math.min(candidate.length, wanted.length) / 3));
    if (isNear && distance < (nearest?.distance ?? Number.POSITIVE_INFINITY)) nearest = { name, distance };
  }
  if (nearest === undefined && key.endsWith("_file")) return nearestKey(key.slice(0, -"_file".length), known);
  return nearest?.name;
}

/** Of the values of Anchore's chart: they are nobody's secret, and a file may have them by mistake. */
const chartNames: ReadonlySet<string> = new Set([
  "anchoreConfig",
  "existingCredentialSecret",
  "accessKeySecretKey",
  "secretKeySecretKey",
]);

/**
 * A key as a message may show it. In a damaged file the value of a secret can come to stand where a key should: only what looks like the word
 * that somebody chose for a key, and has a value, or is nearly a known one, is shown.
 */
export function visibleKey(key: string, hasValue: boolean, known: Iterable<string> = []): string {
  if (chartNames.has(key)) return key;
  const isWord = hasValue && /^[a-z]{1,16}(_[a-z]{1,16}){0,5}$/.test(key);
  return isWord || (key.length <= 40 && /^[\w.-]+$/.test(key) && nearestKey(key, known) !== undefined) ? key : HIDDEN;
}

export const HIDDEN = "(not shown)";

/** Keys whose values are shown by nobody, whatever a schema says. */
export function isSecretKey(key: string): boolean {
  return /secret|passw|passphrase|token|credential|(^|_)key$|db_connect$/i.test(key) && !/_file$/i.test(key);
}

/** Upper case and separators are what people mix up without noticing. */
function fold(key: string): string {
  return key.toLowerCase().replace(/[-_ .]/g, "");
}

/** Insertions, deletions, changes and swaps of neighbours between two words; for words of usual length. */
function editDistance(one: string, other: string): number {
  if (Math.abs(one.length - other.length) > 8 || one.length > 64) return Number.POSITIVE_INFINITY;
  let before: number[] = [];
  let above = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let row = 1; row <= one.length; row++) {
    const current = [row];
    for (let column = 1; column <= other.length; column++) {
      const isSame = one[row - 1] === other[column - 1];
      let cost = Math.min(
        (above[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (above[column - 1] ?? 0) + (isSame ? 0 : 1),
      );
      if (row > 1 && column > 1 && one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]) {
        cost = Math.min(cost, (before[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    before = above;
    above = current;
  }
  return above[other.length] ?? 0;
}
