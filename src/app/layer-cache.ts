import { lstat } from "node:fs/promises";
import { resolve } from "node:path";
import type { AnalysisReport } from "../analysis/index.ts";
import { isTemporaryFull } from "../errors/index.ts";
import type { CachedLayers, CacheStats, LayerCache } from "../layercache/index.ts";
import type { ImageSource, LayerSource } from "../oci/index.ts";
import { type Call, type Progress, throwIfAborted } from "../runtime/index.ts";
import type { ApplicationOptions } from "./application.ts";

/** What says where the layer cache is and how large it may become. */
export type LayerCacheChoice = Pick<ApplicationOptions, "configuration" | "temporaryDirectory">;

/** The layer cache, for those who look after it. Disposing of it closes it. */
export interface FoundLayerCache extends AsyncDisposable {
  readonly directory: string;
  /** Whether analyses use it. */
  readonly isEnabled: boolean;
  /** What the configuration, or its default, lets it take up. */
  readonly bytesMax: number;
  /** `undefined` where the directory is not there. */
  readonly cache: LayerCache | undefined;
  /** What it may take up now, by the word of all who use it; `undefined` where nobody has said anything. */
  limitOf(stats: CacheStats): number | undefined;
}

/** More than any configuration says. */
const withoutLimit = 2e15;

/** The name under which operators know it. */
const directoryName = "anchore_layercache";

/**
 * The layer cache where the configuration says it is, turned on or not; none is made. A configuration that neither turns it on nor says how large it may
 * be is not that of the analyses which fill it: looking at it must not make it smaller.
 */
export async function findLayerCache(choice: LayerCacheChoice, call: Call): Promise<FoundLayerCache> {
  const directory = directoryOf(choice);
  const { layerCache, values } = choice.configuration;
  const { enabled: isEnabled, bytesMax } = layerCache;
  const said = values.find(({ key }) => key === "services.analyzer.layer_cache_max_gigabytes");
  const limit = isEnabled || said?.source.kind === "file" ? bytesMax : withoutLimit;
  // What an analysis is told of, a command fails for.
  const cache = (await isThere(directory)) ? await open(directory, limit, () => {}, call) : undefined;
  return {
    directory,
    isEnabled,
    bytesMax,
    cache,
    limitOf: (stats) => (stats.bytesMax < withoutLimit ? stats.bytesMax : undefined),
    [Symbol.asyncDispose]: async () => await cache?.[Symbol.asyncDispose](),
  };
}

function directoryOf({ temporaryDirectory }: LayerCacheChoice): string {
  return resolve(temporaryDirectory, directoryName);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
  } catch (error) {
    // Whatever else is wrong with it is for the cache itself to say.
    return !["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
  }
  return true;
}

async function open(
  directory: string,
  bytesMax: number,
  tell: (text: string) => void,
  call: Call,
): Promise<LayerCache> {
  // Loaded where one is wanted: it brings a database library.
  const { openLayerCache } = await import("../layercache/index.ts");
  return await openLayerCache({ directory, bytesMax, tell }, call);
}

/** The layer cache of an application: opened when the first image of a registry is analysed, one for all of them. */
export class SharedLayerCache implements AsyncDisposable {
  readonly #choice: LayerCacheChoice;
  readonly #layers = new WeakMap<LayerSource, CachedLayers>();
  #cache: Promise<LayerCache> | undefined;
  #givingWay: Promise<boolean> | undefined;
  /** Of the analysis that began last: where trouble is told. */
  #progress: Progress | undefined;

  constructor(choice: LayerCacheChoice) {
    this.#choice = choice;
  }

  /** The layers with the cache before them, if it is turned on and they come from elsewhere; the same ones each time. */
  async layersOf(layers: LayerSource, progress: Progress, call: Call): Promise<CachedLayers | undefined> {
    if (!this.#isUsed) return undefined;
    this.#progress = progress;
    if (!layers.isAuthority) return undefined;
    const cache = await this.#open(call);
    const cached = this.#layers.get(layers) ?? cache.before(layers);
    this.#layers.set(layers, cached);
    return cached;
  }

  /**
   * Analyses an image of `source`, with the cache before its layers if it is turned on and they come from elsewhere. The report says what it has saved.
   * Should the analysis find no room on the disk that both share, it is the cache that gives way.
   */
  async before(
    source: ImageSource,
    analyze: (source: ImageSource) => Promise<AnalysisReport>,
    progress: Progress,
    call: Call,
  ): Promise<AnalysisReport> {
    if (!this.#isUsed) return await analyze(source);
    const layers = await this.layersOf(source.layers, progress, call);
    const withUse = (report: AnalysisReport): AnalysisReport =>
      layers === undefined ? report : { ...report, layerCache: { hits: layers.hits, bytesSaved: layers.bytesSaved } };
    try {
      return withUse(await analyze(layers === undefined ? source : withLayers(source, layers)));
    } catch (error) {
      if (!isTemporaryFull(error) || call.signal.aborted) throw error;
      this.#givingWay ??= this.#giveWay(progress, call);
      if (!(await this.#givingWay)) throw error;
      // Layers that are done by now are known.
      return withUse(await analyze(source));
    }
  }

  get #isUsed(): boolean {
    return this.#choice.configuration.layerCache.enabled && this.#givingWay === undefined;
  }

  /** Returns whether there was anything to give. */
  async #giveWay(progress: Progress, call: Call): Promise<boolean> {
    const directory = directoryOf(this.#choice);
    if (!(await isThere(directory))) return false;
    progress.tell(`there is no room beside the layer cache ${directory}: it is emptied, and not used any more`);
    try {
      await (await this.#open(call)).clear(call);
      return true;
    } catch (error) {
      throwIfAborted(call);
      call.log.warn({ err: error }, "layer cache not emptied");
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opening = this.#cache;
    this.#cache = undefined;
    await (await opening?.catch(() => undefined))?.[Symbol.asyncDispose]();
  }

  #open(call: Call): Promise<LayerCache> {
    const { bytesMax } = this.#choice.configuration.layerCache;
    const tell = (text: string) => this.#progress?.tell(text);
    this.#cache ??= open(directoryOf(this.#choice), bytesMax, tell, call).catch((error: unknown) => {
      // One analysis that was stopped meanwhile must not be the end of it for all.
      this.#cache = undefined;
      throw error;
    });
    return this.#cache;
  }
}

function withLayers(source: ImageSource, layers: LayerSource): ImageSource {
  return {
    description: source.description,
    layers,
    resolve: (platform, call) => source.resolve(platform, call),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
