import type { z } from "zod";
import type { migrationDocuments } from "./migration-documents.ts";
import type { Output } from "./output.ts";
import { printableJson } from "./printable.ts";

/** See the document for what each event has. */
export type MigrationEvent = {
  readonly event: z.infer<(typeof migrationDocuments)["objectstorage-migrate"]>["event"];
} & Readonly<Record<string, unknown>>;

/** Events of a migration as lines of JSON on standard output, in order. */
export class MigrationEvents {
  readonly #output: Output;
  #writing: Promise<void> = Promise.resolve();

  constructor(output: Output) {
    this.#output = output;
  }

  async send(event: MigrationEvent): Promise<void> {
    const line = `${printableJson(JSON.stringify(event))}\n`;
    const writing = this.#writing.then(async () => {
      await this.#output.write(line);
      await this.#output.flush();
    });
    this.#writing = writing.catch(() => {});
    await writing;
  }

  /** Without waiting; when nobody reads any more, the work goes on all the same. */
  post(event: MigrationEvent): void {
    this.send(event).catch(() => {});
  }
}
