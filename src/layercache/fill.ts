import { createHash } from "node:crypto";
import { Transform, type TransformCallback } from "node:stream";
import type { Logger } from "../runtime/index.ts";
import type { CacheFile } from "./cache-files.ts";
import type { CacheSession, Room } from "./cache-session.ts";
import { type CacheTrouble, troubleOf } from "./trouble.ts";

/**
 * A layer on its way from its source to its reader, which keeps a copy. Trouble with the copy is not the reader's: the layer goes on without. The copy
 * becomes an entry before the stream ends, if all of it came and its digest is right; else nothing of it stays.
 */
export class Fill extends Transform {
  readonly #session: CacheSession;
  readonly #room: Room;
  readonly #log: Logger;
  readonly #hold: Disposable;
  readonly #onTrouble: (trouble: CacheTrouble) => void;
  readonly #done = Promise.withResolvers<void>();
  readonly #hash = createHash("sha256");
  #file: CacheFile | undefined;
  #position = 0;
  #isOver = false;

  private constructor(
    session: CacheSession,
    room: Room,
    file: CacheFile,
    log: Logger,
    onTrouble: (trouble: CacheTrouble) => void,
  ) {
    super();
    this.#session = session;
    this.#room = room;
    this.#file = file;
    this.#log = log;
    this.#onTrouble = onTrouble;
    this.#hold = session.hold();
  }

  /** Takes over the room; `undefined` if the copy can't even begin, and then the room is given back. */
  static async begin(
    session: CacheSession,
    room: Room,
    log: Logger,
    onTrouble: (trouble: CacheTrouble) => void,
  ): Promise<Fill | undefined> {
    try {
      return new Fill(session, room, await session.directory.createPartial(room.token, room.size), log, onTrouble);
    } catch (error) {
      onTrouble(troubleOf(error));
      await session.giveUp(room, log);
      return undefined;
    }
  }

  get digest(): string {
    return this.#room.digest;
  }

  /** Resolves when the copy is an entry or nothing any more. */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    // Before the reader gets the chunk: it may give its memory to another thread.
    this.#copy(chunk).then(() => done(null, chunk), done);
  }

  override _flush(done: TransformCallback): void {
    this.#finish().then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // A reader that has all bytes may leave before the end.
    this.#finish().then(
      () => done(error),
      (failure: Error) => done(error ?? failure),
    );
  }

  async #copy(chunk: Buffer): Promise<void> {
    const file = this.#file;
    if (file === undefined || this.#isOver) return;
    try {
      // More than was announced has no room here, and is an error of the layer, not of the cache.
      if (this.#position + chunk.length > this.#room.size) {
        await this.#end(false);
        return;
      }
      this.#hash.update(chunk);
      for (let rest = chunk; rest.length > 0; ) {
        const written = await file.write(rest, this.#position);
        this.#position += written;
        rest = rest.subarray(written);
        if (this.#isOver) return;
      }
    } catch (error) {
      this.#onTrouble(troubleOf(error));
      await this.#end(false);
    }
  }

  async #finish(): Promise<void> {
    if (this.#isOver) return await this.#done.promise;
    const isWhole = this.#position === this.#room.size && this.#hash.digest("hex") === this.#room.digest;
    await this.#end(isWhole);
  }

  async #end(isWhole: boolean): Promise<void> {
    if (this.#isOver) return await this.#done.promise;
    this.#isOver = true;
    try {
      // A write that is under way ends before.
      await this.#file?.close();
      this.#file = undefined;
      if (!isWhole || !(await this.#session.keep(this.#room, this.#log))) {
        await this.#session.giveUp(this.#room, this.#log);
      }
    } catch (error) {
      await this.#failed(troubleOf(error));
    } finally {
      this.#hold[Symbol.dispose]();
      this.#done.resolve();
    }
  }

  async #failed(trouble: CacheTrouble): Promise<void> {
    this.#onTrouble(trouble);
    if (this.#session.isRetired) return;
    try {
      await this.#session.giveUp(this.#room, this.#log);
    } catch (error) {
      this.#onTrouble(troubleOf(error));
    }
  }
}
