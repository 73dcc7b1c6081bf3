import {
  analyzerPlace,
  type ConfigurationValue,
  defaultLayerCache,
  gigabyte,
  type LayerCacheSettings,
} from "./configuration.ts";
import { interpret } from "./interpret.ts";
import { analyzerSection } from "./schema.ts";
import { sourceOf } from "./store-sections.ts";
import type { MapTree } from "./yaml-tree.ts";

/**
 * `services.analyzer`, as far as it means something here.
 * @throws StowageError `CONFIG_INVALID`
 */
export function readAnalyzerSection(
  section: MapTree | undefined,
  file: string,
): { readonly layerCache: LayerCacheSettings; readonly values: readonly ConfigurationValue[] } {
  const tree: MapTree = section ?? { kind: "map", entries: new Map(), line: 1, size: 1 };
  const { layer_cache_enable, layer_cache_max_gigabytes } = interpret(tree, analyzerSection, {
    file,
    key: analyzerPlace,
    line: tree.line,
  });
  const layerCache: LayerCacheSettings = {
    enabled: layer_cache_enable ?? defaultLayerCache.enabled,
    bytesMax:
      layer_cache_max_gigabytes == null ? defaultLayerCache.bytesMax : Math.floor(layer_cache_max_gigabytes * gigabyte),
  };
  const value = (name: string, shown: boolean | number): ConfigurationValue => ({
    key: `${analyzerPlace}.${name}`,
    value: shown,
    source: sourceOf(tree.entries.get(name), file),
  });
  return {
    layerCache,
    values: [
      value("layer_cache_enable", layerCache.enabled),
      value("layer_cache_max_gigabytes", layerCache.bytesMax / gigabyte),
    ],
  };
}
