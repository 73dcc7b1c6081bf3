import { StowageError } from "../errors/index.ts";

/**
 * The limits that protect an analysis from hostile or broken images. Each has a name (its key), a default and the unit in its name.
 * Set with `--limit NAME=VALUE` or `STOWAGE_LIMITS="NAME=VALUE,…"`.
 */
export const limitDefinitions = {
  manifestBytesMax: { default: 4 * 1024 * 1024, description: "size of a manifest, an index or an image configuration" },
  layersMax: { default: 1000, description: "layers of one image" },
  layerBlobBytesMax: { default: 256 * 2 ** 30, description: "compressed size of one layer" },
  layerBytesMax: { default: 1024 * 2 ** 30, description: "uncompressed size of one layer" },
  layerRatioMax: {
    default: 1100,
    description: "uncompressed by compressed bytes of one layer, counted after the first 64 MiB of output",
  },
  layerEntriesMax: { default: 50_000_000, description: "tar entries of one layer" },
  entryHeaderBytesMax: {
    default: 1024 * 1024,
    description: "size of a pax, long-name or long-link record of one entry",
  },
  pathBytesMax: { default: 8 * 1024, description: "length of one path or link target" },
  nameRepeatsMax: { default: 100_000, description: "entries of one layer with the same name, and hard links to it" },
  layerLinksMax: { default: 500_000, description: "hard links of one layer" },
  keptFileBytesMax: { default: 512 * 2 ** 20, description: "size of one file whose content is kept for a cataloger" },
  keptLayerBytesMax: { default: 4 * 2 ** 30, description: "size of all file contents kept of one layer" },
  layerSpillBytesMax: { default: 32 * 2 ** 30, description: "temporary bytes on disk while one layer is read" },
  findingsMax: { default: 2_000_000, description: "findings in one layer" },
  sourcesMax: { default: 10_000, description: "sources of images that one command analyses" },
  notesMax: { default: 1000, description: "notes kept for one layer or image; the rest is counted" },
} as const;

export type LimitName = keyof typeof limitDefinitions;
export type Limits = Readonly<Record<LimitName, number>>;

export const defaultLimits: Limits = Object.fromEntries(
  Object.entries(limitDefinitions).map(([name, definition]) => [name, definition.default]),
) as Record<LimitName, number>;

/**
 * The default limits changed by `NAME=VALUE` settings; later ones win. Values are positive integers, with an optional suffix
 * `k`, `m`, `g` (powers of 1,024).
 * @throws StowageError `CONFIG_INVALID` for an unknown name or a bad value
 */
export function parseLimits(settings: readonly string[]): Limits {
  const limits: Record<string, number> = { ...defaultLimits };
  for (const setting of settings) {
    const [name = "", text = ""] = setting.split("=", 2).map((part) => part.trim());
    if (!Object.hasOwn(limitDefinitions, name)) {
      throw new StowageError(
        "CONFIG_INVALID",
        { key: name, reason: "no such limit" },
        { hint: `limits are: ${Object.keys(limitDefinitions).join(", ")}` },
      );
    }
    const match = /^(\d{1,15})([kmg]?)$/i.exec(text);
    const value = match ? Number(match[1]) * 1024 ** ["", "k", "m", "g"].indexOf((match[2] ?? "").toLowerCase()) : 0;
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new StowageError("CONFIG_INVALID", { key: name, reason: `not a positive whole number: ${text}` });
    }
    limits[name] = value;
  }
  return limits as Limits;
}
