import type { LayerPool } from "../analysis/index.ts";
import { type ImageSource, openSource, parsePlatform } from "../oci/index.ts";
import { type Call, unlessAborted } from "../runtime/index.ts";
import type { ApplicationOptions, SourceRequest } from "./application.ts";
import type { SharedLayerCache } from "./layer-cache.ts";

/** What there is without a database. */
interface Surroundings extends Pick<ApplicationOptions, "limits" | "credentials" | "temporaryDirectory"> {
  readonly layerCache: SharedLayerCache;
  readonly threads: Promise<LayerPool>;
  /** The database is only being made: none of the layers can be known. */
  readonly isNothingKnown: boolean;
}

/**
 * A source that is opened, and its image found, while there is no database yet; where that is only being made, its layers are read, too. What fails is
 * told to whoever takes the source. Disposing of it stops all that, and closes the source.
 */
export class SourceAhead implements AsyncDisposable {
  readonly #request: SourceRequest;
  readonly #stop = new AbortController();
  readonly #opened: Promise<ImageSource>;
  #source: ImageSource | undefined;
  #reading: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #isTaken = false;

  constructor(request: SourceRequest, surroundings: Surroundings, call: Call) {
    this.#request = request;
    const inner = { ...call, signal: AbortSignal.any([call.signal, this.#stop.signal]) };
    this.#opened = this.#open(surroundings, inner);
    this.#opened.catch(() => {});
  }

  /** The source, if it is this one that is asked for. Once; it is closed by disposing of either. */
  take({ source, platform, insecure }: SourceRequest, call: Call): Promise<ImageSource> | undefined {
    const own = this.#request;
    const isIt = source === own.source && platform === own.platform && insecure === own.insecure;
    if (this.#isTaken || !isIt) return undefined;
    this.#isTaken = true;
    return unlessAborted(this.#opened, call);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #open({ layerCache, threads, isNothingKnown, ...options }: Surroundings, call: Call): Promise<ImageSource> {
    const { source: text, platform, insecure, progress } = this.#request;
    const source = await openSource(text, { ...options, insecure, progress }, call);
    this.#source = source;
    const image = source.resolve(platform === undefined ? undefined : parsePlatform(platform), call);
    const layers = layerCache.layersOf(source.layers, progress, call);
    const read = async () => {
      const [resolved, cached] = await Promise.all([image, layers]);
      if (isNothingKnown) (await threads).readAhead(resolved.layers, cached ?? source.layers, call);
    };
    this.#reading = read().catch(() => {});
    const resolve = (_platform: unknown, under: Call) => unlessAborted(image, under);
    return { ...source, resolve, [Symbol.asyncDispose]: () => this[Symbol.asyncDispose]() };
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    await this.#opened.catch(() => {});
    await this.#reading;
    await this.#source?.[Symbol.asyncDispose]();
  }
}
