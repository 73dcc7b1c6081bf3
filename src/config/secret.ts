const revealed = new Set<string>();
const MASK = "********";

/** A value that prints as asterisks wherever it lands. {@link Secret.reveal} is the only way in, and what it reveals is masked in every later output. */
export class Secret {
  readonly #value: string;
  readonly #parts: readonly string[];

  /** @param parts what is masked, where not all of it is to be: a URL may be shown without its password */
  constructor(value: string, parts: readonly string[] = [value]) {
    this.#value = value;
    this.#parts = parts;
  }

  reveal(): string {
    // Short values would mask ordinary text everywhere.
    for (const part of this.#parts) if (part.length >= 4) revealed.add(part);
    return this.#value;
  }

  /** Whether `text` is the secret, without opening it. */
  isEqualTo(text: string): boolean {
    return this.#value === text;
  }

  toString(): string {
    return MASK;
  }

  toJSON(): string {
    return MASK;
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return MASK;
  }
}

/** `text` with every secret that was ever revealed replaced by asterisks, and passwords in URLs as well. */
export function maskSecrets(text: string): string {
  // Begins at the literal "://": with the scheme before it, a long path would cost time that grows with the square of its length.
  let masked = text.replace(/(:\/\/[^\s:/@]*:)[^\s/@]+@/g, `$1${MASK}@`);
  for (const value of revealed) {
    // Half of a surrogate pair, as JSON can have it, has no percent-encoded form.
    const encoded = encodeURIComponent(value.toWellFormed());
    for (const form of new Set([value, encoded, JSON.stringify(value).slice(1, -1)])) {
      if (masked.includes(form)) masked = masked.replaceAll(form, MASK);
    }
  }
  return masked;
}
