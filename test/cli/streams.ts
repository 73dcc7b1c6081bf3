/** Streams that stand in for a terminal, a pipe and a full disk. */
import { Writable } from "node:stream";

export class FakeStream extends Writable {
  readonly isTTY: boolean;
  columns: number;
  rows: number;
  text = "";
  /** Fails every write with this code from now on. */
  failure: string | undefined;
  /** The longest chunk that was waiting at once, in characters. */
  mostWaiting = 0;

  constructor(terminal?: { readonly columns: number; readonly rows: number }) {
    super({ decodeStrings: false });
    this.isTTY = terminal !== undefined;
    this.columns = terminal?.columns ?? 80;
    this.rows = terminal?.rows ?? 24;
  }

  override _write(chunk: string | Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.mostWaiting = Math.max(this.mostWaiting, this.writableLength);
    if (this.failure) {
      done(Object.assign(new Error(`write ${this.failure}`), { code: this.failure }));
      return;
    }
    this.text += String(chunk);
    // Later, as a slow reader would.
    setImmediate(done);
  }
}

/** Just enough of a terminal to know what a person sees: text, line breaks, and the cursor movements that log-update uses. */
export class Screen {
  readonly #columns: number;
  #lines: string[] = [""];
  #row = 0;
  #column = 0;

  constructor(columns: number) {
    this.#columns = columns;
  }

  /** Lines without trailing blanks, scrolled-out ones included. */
  get lines(): readonly string[] {
    const lines = this.#lines.map((line) => line.trimEnd());
    while (lines.at(-1) === "") lines.pop();
    return lines;
  }

  write(text: string): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: terminals speak in control characters
    for (const [token] of text.matchAll(/\x1b\[\??[\d;]*[A-Za-z]|[^\x1b]/gsu)) this.#take(token);
  }

  #take(token: string): void {
    if (token === "\n") {
      this.#row++;
      this.#column = 0;
      this.#lines[this.#row] ??= "";
      return;
    }
    if (!token.startsWith("\u001b")) {
      if (this.#column >= this.#columns) this.#take("\n");
      const line = (this.#lines[this.#row] ?? "").padEnd(this.#column);
      this.#lines[this.#row] = line.slice(0, this.#column) + token + line.slice(this.#column + 1);
      this.#column++;
      return;
    }
    const [, digits = "", kind = ""] = /\[\??([\d;]*)([A-Za-z])/.exec(token) ?? [];
    const count = Number(digits || 1);
    if (kind === "A") this.#row = Math.max(0, this.#row - count);
    else if (kind === "B") this.#row += count;
    else if (kind === "G") this.#column = count - 1;
    else if (kind === "K")
      this.#lines[this.#row] = digits === "2" ? "" : (this.#lines[this.#row] ?? "").slice(0, this.#column);
    else if (!"mhl".includes(kind)) throw new Error(`the screen does not know ${JSON.stringify(token)}`);
  }
}
