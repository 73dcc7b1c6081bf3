import { constants } from "node:fs";
import { StowageError } from "../../../errors/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { FileCalls, OpenFile } from "./file-calls.ts";
import { attempt, driverName } from "./file-failure.ts";

/** So many bytes go to the file system in one call, while the next are gathered. */
const batchBytes = 512 * 1024;

export interface PartOptions {
  readonly fileMode: number;
  readonly group?: number;
}

/**
 * A file that a put is writing, under a name of no blob.
 *
 * A failed fsync is never tried again on the same file: the kernel may have dropped the pages it could not write and marked them clean, and a second
 * fsync would report success. The put fails, and another attempt writes all bytes to a new file.
 */
export class PartWriter {
  readonly path: string;
  readonly #key: PhysicalKey;
  readonly #file: OpenFile;
  #isOpen = true;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #position = 0;
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string, key: PhysicalKey, file: OpenFile) {
    this.path = path;
    this.#key = key;
    this.#file = file;
  }

  static async create(files: FileCalls, path: string, key: PhysicalKey, options: PartOptions): Promise<PartWriter> {
    // O_EXCL: neither a file nor a symbolic link that lies there is ever written to.
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    // Until it has its group, nobody else may read it.
    const mode = options.group === undefined ? options.fileMode : options.fileMode & 0o600;
    return new PartWriter(path, key, await files.open(path, flags, mode));
  }

  /** Writes the whole body. Returns its length. */
  async write(
    body: AsyncIterable<Buffer> | Iterable<Buffer>,
    announcedBytes: number | undefined,
    check: () => void,
  ): Promise<number> {
    let sizeBytes = 0;
    for await (const piece of body) {
      sizeBytes += piece.length;
      if (sizeBytes > (announcedBytes ?? Number.POSITIVE_INFINITY)) break;
      this.#gathered.push(piece);
      this.#gatheredBytes += piece.length;
      // Many small pieces are many buffers for one call: it takes 1024 at most.
      if (this.#gatheredBytes >= batchBytes || this.#gathered.length === 1024) await this.#startBatch();
      check();
    }
    if (sizeBytes !== (announcedBytes ?? sizeBytes)) {
      const reason = `the body has ${sizeBytes} bytes or more, ${announcedBytes} were announced`;
      throw new StowageError("BACKEND_FAILED", { driver: driverName, operation: "put", key: this.#key, reason });
    }
    await this.#startBatch();
    await this.#writing;
    return sizeBytes;
  }

  /** Gives the file its permissions and makes it durable; its name is not yet. */
  async finish({ fileMode, group }: PartOptions): Promise<void> {
    await this.#attempt(async () => {
      if (group !== undefined) await this.#file.chgrp(group);
      // The mode that open(2) was given is cut by the umask, and a directory's default rules may change it.
      const { mode } = await this.#file.status();
      if ((Number(mode) & 0o7777) !== fileMode) await this.#file.chmod(fileMode);
      await this.#file.sync();
      await this.#close();
    });
  }

  /** Closes the file, whatever state it is in. Its name stays. */
  async abandon(): Promise<void> {
    await this.#writing.catch(() => {}); // the failure that leads here, or one beside it
    await this.#close().catch(() => {}); // as above: its bytes are not wanted
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close();
  }

  /** Sends what was gathered once the batch before it is written. */
  async #startBatch(): Promise<void> {
    await this.#writing;
    const batch = this.#gathered;
    const position = this.#position;
    this.#position += this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#writing = this.#attempt(() => this.#writeAll(batch, position));
    this.#writing.catch(() => {}); // it is awaited before anything else is written
  }

  /** write(2) may take a part only: at a signal, at a quota, on a disk that is about to be full. The next call says why. */
  async #writeAll(batch: readonly Buffer[], position: number): Promise<void> {
    let rest = batch.filter(({ length }) => length > 0);
    let at = position;
    while (rest.length > 0) {
      const written = await this.#file.write(rest, at);
      if (written <= 0) throw Object.assign(new Error("write(2) wrote nothing"), { code: "EIO" });
      at += written;
      rest = after(rest, written);
    }
  }

  #attempt<T>(work: () => Promise<T>): Promise<T> {
    return attempt({ operation: "put", key: this.#key, path: this.path, isChange: true }, work);
  }
}

/** The buffers without their first `count` bytes. */
function after(buffers: readonly Buffer[], count: number): Buffer[] {
  let skipped = count;
  const rest: Buffer[] = [];
  for (const bytes of buffers) {
    if (skipped >= bytes.length) skipped -= bytes.length;
    else {
      rest.push(skipped === 0 ? bytes : bytes.subarray(skipped));
      skipped = 0;
    }
  }
  return rest;
}
