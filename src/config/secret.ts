const revealed = new Set<string>();
const MASK = "********";

/** A value that prints as asterisks wherever it lands. {@link Secret.reveal} is the only way in, and what it reveals is masked in every later output. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    // Short values would mask ordinary text everywhere.
    if (this.#value.length >= 4) revealed.add(this.#value);
    return this.#value;
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
  let masked = text.replace(/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*:)[^\s/@]+@/gi, `$1${MASK}@`);
  for (const value of revealed) {
    for (const form of new Set([value, encodeURIComponent(value)])) {
      if (masked.includes(form)) masked = masked.replaceAll(form, MASK);
    }
  }
  return masked;
}
