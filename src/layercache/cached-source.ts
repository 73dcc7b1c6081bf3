import { pipeline, type Readable } from "node:stream";
import { type Descriptor, digestAlgorithm, digestHex, type LayerFile, type LayerSource } from "../oci/index.ts";
import { type Call, type Clock, throwIfAborted } from "../runtime/index.ts";
import type { CacheSession, OpenEntry } from "./cache-session.ts";
import { entryStream, proveEntry } from "./entry-bytes.ts";
import { Fill } from "./fill.ts";
import { type CacheTrouble, troubleOf } from "./trouble.ts";
import type { CachedLayers } from "./types.ts";

/** What all cached sources of a process share. */
export interface CacheHost {
  readonly clock: Clock;
  /** Downloads of this process, by their digest. */
  readonly fills: Map<string, Fill>;
  /** `undefined` when the cache can't be used. */
  session(call: Call): Promise<CacheSession | undefined>;
  report(trouble: CacheTrouble): void;
}

/** Another's download that gets no further is not waited for. */
const stallMs = 60_000;
const pollFirstMs = 10;
const pollMaxMs = 250;
/** Between two questions whether another's process still lives. */
const livenessMs = 1_000;
/** How often a layer may be there, and gone when it is to be opened. */
const attemptsMax = 20;

/** A registry's layers, with the cache before it. */
export class CachedSource implements CachedLayers {
  readonly isAuthority = true;
  readonly #host: CacheHost;
  readonly #source: LayerSource;
  /** Layers that the source has said the requester may read. */
  readonly #readable = new Set<string>();
  /** Sizes of those that came from the cache. */
  readonly #served = new Map<string, number>();

  constructor(host: CacheHost, source: LayerSource) {
    this.#host = host;
    this.#source = source;
  }

  get hits(): number {
    return this.#served.size;
  }

  get bytesSaved(): number {
    return this.#served.values().reduce((sum, size) => sum + size, 0);
  }

  async has(layer: Descriptor, call: Call): Promise<boolean> {
    const isReadable = await this.#source.has(layer, call);
    if (isReadable) this.#readable.add(layer.digest);
    return isReadable;
  }

  async openFile(layer: Descriptor, call: Call): Promise<LayerFile | undefined> {
    throwIfAborted(call);
    const found = await this.#tryCache(layer, (session) => this.#find(session, layer, call), call);
    if (typeof found !== "object") return undefined;
    const { file } = found;
    return {
      description: "the layer cache",
      descriptor: file.descriptor,
      start: 0,
      size: layer.size,
      [Symbol.asyncDispose]: () => found[Symbol.asyncDispose](),
    };
  }

  async open(layer: Descriptor, call: Call): Promise<Readable> {
    throwIfAborted(call);
    const stream = await this.#tryCache(layer, (session) => this.#openThrough(session, layer, call), call);
    return stream ?? (await this.#source.open(layer, call));
  }

  async recheck(layer: Descriptor, call: Call): Promise<boolean> {
    const size = this.#served.get(layer.digest);
    // What did not come from the cache can't be mended by it.
    if (size === undefined) return await this.#source.recheck(layer, call);
    const isSound = await this.#tryCache(
      layer,
      async (session) => {
        const digest = digestHex(layer.digest);
        const entry = await session.openEntry(digest, size, false, call);
        if (typeof entry === "string") return false;
        const damage = await closing(entry, () => proveEntry(entry.file, digest, size, () => {}, call));
        if (damage !== undefined) await session.forget(digest, call);
        return damage === undefined;
      },
      call,
    );
    if (isSound) return false;
    this.#served.delete(layer.digest);
    return true;
  }

  /** Does something with the cache; `undefined` where it can't be used. What the source throws is thrown. */
  async #tryCache<T>(
    layer: Descriptor,
    work: (session: CacheSession) => Promise<T>,
    call: Call,
  ): Promise<T | undefined> {
    if (digestAlgorithm(layer.digest) !== "sha256" || layer.size < 1) return undefined;
    const session = await this.#host.session(call);
    if (session === undefined) return undefined;
    try {
      using _ = session.hold();
      return await work(session);
    } catch (error) {
      throwIfAborted(call);
      this.#host.report(troubleOf(error));
      // A later image begins anew.
      session.retire();
      return undefined;
    }
  }

  /** The layer's entry, once nobody is downloading it; `past`: it is not to be waited for, or not this requester's. */
  async #find(session: CacheSession, layer: Descriptor, call: Call): Promise<OpenEntry | "absent" | "past"> {
    const digest = digestHex(layer.digest);
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      const row = await session.index.find(digest, call);
      if (row === undefined || row.state === "deleting") return "absent";
      // Nobody learns from the cache, not even by its timing, what the source would not tell.
      if (!(await this.#mayRead(layer, call))) return "past";
      if (row.state === "filling") {
        if (await this.#settled(session, digest, row.token ?? "", call)) continue;
        return "past";
      }
      const entry = await session.openEntry(digest, layer.size, true, call);
      if (typeof entry === "string") return "absent";
      this.#served.set(layer.digest, layer.size);
      return entry;
    }
    return "past";
  }

  async #mayRead(layer: Descriptor, call: Call): Promise<boolean> {
    if (this.#readable.has(layer.digest)) return true;
    try {
      return await this.has(layer, call);
    } catch {
      throwIfAborted(call);
      // A registry that can't answer this question may still send the layer, or says better why not.
      return false;
    }
  }

  async #openThrough(session: CacheSession, layer: Descriptor, call: Call): Promise<Readable | undefined> {
    const digest = digestHex(layer.digest);
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      const found = await this.#find(session, layer, call);
      if (typeof found === "object") return entryStream(found, layer.size, call);
      if (found === "past") return undefined;
      const claim = await session.claim(digest, layer.size, call);
      if (claim.kind === "refused") return undefined;
      if (claim.kind !== "room") continue;
      let body: Readable;
      try {
        body = await this.#source.open(layer, call);
      } catch (error) {
        await session.giveUp(claim.room, call.log).catch((failure: unknown) => this.#host.report(troubleOf(failure)));
        throw error;
      }
      const fill = await Fill.begin(session, claim.room, call.log, (trouble) => this.#host.report(trouble)).catch(
        (failure: unknown) => {
          this.#host.report(troubleOf(failure));
          return undefined;
        },
      );
      if (fill === undefined) return body;
      this.#host.fills.set(digest, fill);
      void fill.done.then(() => this.#host.fills.delete(digest));
      // Errors reach the reader through the copy.
      return pipeline(body, fill, () => undefined);
    }
    return undefined;
  }

  /** Waits until a download has ended, well or not. Says no if it gets no further. */
  async #settled(session: CacheSession, digest: string, token: string, call: Call): Promise<boolean> {
    const { clock, fills } = this.#host;
    const now = () => clock.now().getTime();
    let lastSign: string | undefined;
    let lastSignAt = now();
    let lastAskedAt = Number.NEGATIVE_INFINITY;
    for (let delayMs = pollFirstMs; ; delayMs = Math.min(delayMs * 1.5, pollMaxMs)) {
      await sleepUntil(fills.get(digest)?.done, delayMs, clock, call);
      const row = await session.index.find(digest, call);
      if (row?.state !== "filling" || row.token !== token) return true;
      const status = await session.directory.statusOf(session.directory.partial(token));
      const sign = status && `${status.mtimeMs} ${status.blocks}`;
      if (sign !== lastSign) {
        lastSign = sign;
        lastSignAt = now();
      }
      if (now() - lastSignAt > stallMs) return false;
      if (!fills.has(digest) && now() - lastAskedAt > livenessMs) {
        lastAskedAt = now();
        await session.reclaim(call);
      }
    }
  }
}

async function closing<T>(entry: OpenEntry, work: () => Promise<T>): Promise<T> {
  await using _ = entry;
  return await work();
}

/** Sleeps, but no longer than until something is done. */
async function sleepUntil(done: Promise<void> | undefined, ms: number, clock: Clock, call: Call): Promise<void> {
  const woken = new AbortController();
  const asleep = clock.sleep(ms, { ...call, signal: AbortSignal.any([call.signal, woken.signal]) });
  try {
    await (done === undefined ? asleep : Promise.race([asleep, done]));
  } finally {
    woken.abort();
    asleep.catch(() => undefined);
  }
}
