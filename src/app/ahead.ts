import type { LayerPool } from "../analysis/index.ts";
import type { ImageSource } from "../oci/index.ts";
import type { Call } from "../runtime/index.ts";
import type { ApplicationOptions, SourceRequest } from "./application.ts";
import { SharedLayerCache } from "./layer-cache.ts";
import { SourceAhead } from "./source-ahead.ts";

/** What an analysis needs besides a database, begun while somebody waits for that. Disposing of it stops and closes what is under way. */
export class Ahead implements AsyncDisposable {
  readonly layerCache: SharedLayerCache;
  readonly #options: ApplicationOptions;
  readonly #call: Call;
  #threads: Promise<LayerPool> | undefined;
  #source: SourceAhead | undefined;

  constructor(options: ApplicationOptions, call: Call) {
    this.layerCache = new SharedLayerCache(options);
    this.#options = options;
    this.#call = call;
  }

  /** Begins with it, if an analysis is to come and it has not begun before. */
  begin(isNothingKnown: boolean): void {
    const { willAnalyze } = this.#options;
    if (willAnalyze === undefined || this.#threads !== undefined) return;
    const threads = startThreads(this.#options);
    // Its failure is told where it is waited for.
    threads.catch(() => {});
    this.#threads = threads;
    const { layerCache } = this;
    const surroundings = { ...this.#options, layerCache, threads, isNothingKnown };
    if (willAnalyze.first) this.#source = new SourceAhead(willAnalyze.first, surroundings, this.#call);
  }

  /** The threads, if they have been started. */
  get threads(): Promise<LayerPool> | undefined {
    return this.#threads;
  }

  /** The source, if it is the one that was to come first. */
  take(request: SourceRequest, call: Call): Promise<ImageSource> | undefined {
    return this.#source?.take(request, call);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source?.[Symbol.asyncDispose]();
    await (await this.#threads?.catch(() => undefined))?.[Symbol.asyncDispose]();
    await this.layerCache[Symbol.asyncDispose]();
  }
}

/** Modules and threads of an analysis, without waiting for them. Loaded when needed: commands that only read don't wait for catalogers and thread pools. */
async function startThreads({ limits, temporaryDirectory }: ApplicationOptions): Promise<LayerPool> {
  const { LayerPool } = await import("../analysis/index.ts");
  const threads = new LayerPool(limits, temporaryDirectory);
  threads.start();
  return threads;
}
