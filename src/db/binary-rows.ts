import type { Connection, Submittable } from "pg";

/** A row's fields as the server sends them in its binary form. */
export type BinaryRow = readonly (Buffer | null)[];

/**
 * Runs a query as `COPY … TO STDOUT`, whose answer is bytes: `pg` reads each field of other answers as text, which costs long ones a third more to send
 * and the time of being encoded and decoded.
 * @see PostgreSQL, COPY, "Binary Format"; "Message Formats", CopyData: what the server sends corresponds to single rows
 */
export class BinaryRowsQuery implements Submittable {
  readonly rows: Promise<readonly BinaryRow[]>;
  readonly #text: string;
  readonly #answer = Promise.withResolvers<readonly BinaryRow[]>();
  readonly #rows: BinaryRow[] = [];
  #isBegun = false;

  /** @param query one that takes no parameters; whoever writes values into it answers for them */
  constructor(query: string) {
    this.#text = `copy (${query}) to stdout with (format binary)`;
    this.rows = this.#answer.promise;
  }

  submit(connection: Connection): void {
    connection.query(this.#text);
  }

  handleCopyData({ chunk }: { readonly chunk: Buffer }): void {
    let at = 0;
    if (!this.#isBegun) {
      // Signature and flags, then an extension of the header with its length before it.
      at = signatureBytes + 4;
      at += 4 + chunk.readInt32BE(at);
      this.#isBegun = true;
    }
    const row = at < chunk.length ? rowAt(chunk, at) : undefined;
    if (row !== undefined) this.#rows.push(row);
  }

  handleCommandComplete(): void {}

  handleError(error: Error): void {
    this.#answer.reject(error);
  }

  handleReadyForQuery(): void {
    // Nothing changes for one that has failed.
    this.#answer.resolve(this.#rows);
  }
}

const signatureBytes = 11;

/** The row that begins there; `undefined` where the end is said. */
function rowAt(chunk: Buffer, start: number): BinaryRow | undefined {
  const fields = chunk.readInt16BE(start);
  if (fields < 0) return undefined;
  let at = start + 2;
  return Array.from({ length: fields }, () => {
    const length = chunk.readInt32BE(at);
    at += 4;
    if (length < 0) return null;
    at += length;
    // A copy: the message lies in memory that the next one is read into.
    return Buffer.from(chunk.subarray(at - length, at));
  });
}
