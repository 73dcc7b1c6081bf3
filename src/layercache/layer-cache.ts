import { isAbsolute } from "node:path";
import { type LayerSource, parseDigest } from "../oci/index.ts";
import {
  type Call,
  createCall,
  formatCount,
  type Progress,
  systemClock,
  throwIfAborted,
  unlessAborted,
} from "../runtime/index.ts";
import { realCacheFiles } from "./cache-files.ts";
import type { ListedEntry } from "./cache-index.ts";
import { CacheSession, type SessionOptions } from "./cache-session.ts";
import { CachedSource, type CacheHost } from "./cached-source.ts";
import { proveEntry } from "./entry-bytes.ts";
import type { Fill } from "./fill.ts";
import { CacheTrouble, type TroubleKind, troubleOf, unusable } from "./trouble.ts";
import type {
  CachedLayers,
  CacheEntry,
  CacheRemoval,
  CacheStats,
  CacheVerification,
  LayerCache,
  LayerCacheOptions,
} from "./types.ts";

const foreignPathsMax = 1000;
/** Finding the index busy takes long: not for each image. */
const busyAgainMs = 300_000;

/**
 * Opens the cache: puts in order what crashes have left, and makes the limit hold. Trouble with the disk is no failure: the cache passes everything
 * through then, and `options.tell` is told.
 */
export async function openLayerCache(options: LayerCacheOptions, call: Call): Promise<LayerCache> {
  if (!isAbsolute(options.directory)) throw new TypeError("the directory of a layer cache has an absolute path");
  const cache = new BoundedLayerCache(options);
  await cache.start(call);
  return cache;
}

class BoundedLayerCache implements LayerCache {
  readonly #options: SessionOptions;
  readonly #tell: (text: string) => void;
  readonly #told = new Set<TroubleKind>();
  readonly #host: CacheHost;
  #session: CacheSession | undefined;
  #opening: Promise<CacheSession> | undefined;
  /** Why the cache can't be used; looked at anew for each image. */
  #trouble: CacheTrouble | undefined;
  #againAt = 0;
  #isDisposed = false;

  constructor({ directory, bytesMax, tell, clock = systemClock, files = realCacheFiles }: LayerCacheOptions) {
    this.#options = { directory, bytesMax, clock, files };
    this.#tell = tell;
    this.#host = {
      clock,
      fills: new Map<string, Fill>(),
      session: (call) => this.#usable(call),
      report: (trouble) => this.#report(trouble),
    };
  }

  async start(call: Call): Promise<void> {
    await this.#usable(call);
  }

  before(source: LayerSource): CachedLayers {
    // Blobs of layouts and archives are on a disk already.
    if (!source.isAuthority) return passedThrough(source);
    if (this.#now() >= this.#againAt) this.#trouble = undefined;
    return new CachedSource(this.#host, source);
  }

  async stats(call: Call): Promise<CacheStats> {
    return await this.#command(async (session) => {
      await session.survey(call);
      const totals = await session.index.totals(call);
      const { bytes, oldestUse } = await session.index.sumOfSizes(call);
      return {
        directory: this.#options.directory,
        bytesMax: totals.bytesMax,
        entries: totals.ready,
        blobBytes: bytes,
        bytesCounted: totals.cost + totals.foreignBytes + totals.overheadBytes,
        bytesReserved: totals.reserved,
        bytesForeign: totals.foreignBytes,
        entriesInUse: totals.inUse,
        oldestUse: oldestUse === undefined ? undefined : new Date(oldestUse),
      };
    }, call);
  }

  async *entries(call: Call): AsyncGenerator<CacheEntry> {
    for (let after: ListedEntry | undefined; ; ) {
      const page = await this.#command((session) => session.index.page(after, call), call);
      for (const { digest, size, lastUsed, hits, uses } of page) {
        yield {
          digest: parseDigest(`sha256:${digest}`),
          sizeBytes: size,
          lastUsed: new Date(lastUsed),
          hits,
          isInUse: uses > 0,
        };
      }
      after = page.at(-1);
      if (after === undefined) return;
    }
  }

  async trim(bytesMax: number, call: Call): Promise<CacheRemoval> {
    return await this.#command(async (session) => {
      await session.reclaim(call);
      const removed = await session.trim(bytesMax, call);
      return { ...removed, entriesInUse: (await session.index.totals(call)).inUse };
    }, call);
  }

  clear(call: Call): Promise<CacheRemoval> {
    return this.trim(0, call);
  }

  async verify(progress: Progress, call: Call): Promise<CacheVerification> {
    return await this.#command(async (session) => {
      const foreign = await session.survey(call, foreignPathsMax);
      const { bytes: total } = await session.index.sumOfSizes(call);
      const task = progress.begin("verifying the layer cache", total);
      const damaged: { digest: ReturnType<typeof parseDigest>; reason: string }[] = [];
      let entries = 0;
      let bytes = 0;
      const onBytes = (read: number) => {
        bytes += read;
        task.advance(read);
      };
      for (let after: ListedEntry | undefined; ; ) {
        const page = await session.index.page(after, call);
        for (const { digest, size } of page) {
          const damage = await verifyEntry(session, digest, size, onBytes, call);
          if (damage === "absent") continue;
          entries++;
          if (damage !== undefined) damaged.push({ digest: parseDigest(`sha256:${digest}`), reason: damage });
        }
        after = page.at(-1);
        if (after === undefined) break;
      }
      task.end(`${formatCount(entries)} checked, ${formatCount(damaged.length)} damaged`);
      return { entries, bytes, damaged, foreign };
    }, call);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    await this.#opening?.catch(() => undefined);
    // Those whose readers have gone are about to put their copies away.
    const ending = this.#host.fills.values().filter((fill) => fill.destroyed || fill.writableEnded);
    await Promise.all(ending.map((fill) => fill.done));
    await this.#session?.close(createCall());
  }

  /** Does what a person asked for. */
  async #command<T>(work: (session: CacheSession) => Promise<T>, call: Call): Promise<T> {
    throwIfAborted(call);
    try {
      this.#trouble = undefined;
      const session = await this.#current(call);
      using _ = session.hold();
      return await work(session);
    } catch (error) {
      throwIfAborted(call);
      const trouble = troubleOf(error);
      this.#session?.retire();
      throw unusable(this.#options.directory, trouble);
    }
  }

  async #usable(call: Call): Promise<CacheSession | undefined> {
    if (this.#trouble !== undefined || this.#isDisposed) return undefined;
    try {
      return await this.#current(call);
    } catch (error) {
      throwIfAborted(call);
      this.#trouble = troubleOf(error);
      this.#againAt = this.#now() + (this.#trouble.kind === "busy" ? busyAgainMs : 0);
      this.#report(this.#trouble);
      return undefined;
    }
  }

  async #current(call: Call): Promise<CacheSession> {
    if (this.#isDisposed) throw new CacheTrouble("closed", "it has been closed");
    if (this.#session?.isRetired) this.#session = undefined;
    if (this.#session) return this.#session;
    // Several may wait for it; that one of them is interrupted is nothing to the others.
    this.#opening ??= this.#open(createCall({ log: call.log }));
    return await unlessAborted(this.#opening, call);
  }

  async #open(call: Call): Promise<CacheSession> {
    try {
      this.#session = await CacheSession.open(this.#options, call);
      return this.#session;
    } finally {
      this.#opening = undefined;
    }
  }

  #now(): number {
    return this.#options.clock.now().getTime();
  }

  #report(trouble: CacheTrouble): void {
    if (trouble.kind === "closed" || this.#told.has(trouble.kind)) return;
    this.#told.add(trouble.kind);
    this.#tell(
      `the layer cache ${this.#options.directory} can't be used: ${trouble.message}; layers are read without it`,
    );
  }
}

async function verifyEntry(
  session: CacheSession,
  digest: string,
  size: number,
  onBytes: (bytes: number) => void,
  call: Call,
): Promise<string | undefined> {
  const entry = await session.openEntry(digest, size, false, call);
  if (entry === "absent") return entry;
  if (entry === "unfit") return "it can't be opened, or has another size";
  let damage: string | undefined;
  {
    await using _ = entry;
    damage = await proveEntry(entry.file, digest, size, onBytes, call);
  }
  if (damage !== undefined) await session.forget(digest, call);
  return damage;
}

function passedThrough(source: LayerSource): CachedLayers {
  return {
    isAuthority: source.isAuthority,
    hits: 0,
    bytesSaved: 0,
    open: (layer, call) => source.open(layer, call),
    openFile: (layer, call) => source.openFile(layer, call),
    has: (layer, call) => source.has(layer, call),
    recheck: (layer, call) => source.recheck(layer, call),
  };
}
