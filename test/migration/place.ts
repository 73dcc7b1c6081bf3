import { type Compression, defaultCompression } from "../../src/config/index.ts";
import type { BackendSection, DriverCapabilities, ObjectDriver } from "../../src/objects/index.ts";
import { MemoryDriver } from "../fault/memory-driver.ts";

/** A model backend: what it keeps outlives every process. */
export class Place extends MemoryDriver {
  readonly place: string;
  readonly compression: Compression;
  readonly #hasDigest: boolean;

  constructor(place: string, compression: Partial<Compression>, hasDigest: boolean, hasMany: boolean) {
    super();
    if (!hasMany) {
      delete this.getMany;
      delete this.purgeMany;
    }
    this.place = place;
    this.compression = { ...defaultCompression, ...compression };
    this.#hasDigest = hasDigest;
  }

  override async capabilities(): Promise<DriverCapabilities> {
    return { ...(await super.capabilities()), serverDigest: this.#hasDigest };
  }

  override async put(...call: Parameters<MemoryDriver["put"]>): ReturnType<MemoryDriver["put"]> {
    const { digest, ...stored } = await super.put(...call);
    return this.#hasDigest && digest !== undefined ? { ...stored, digest } : stored;
  }

  /** As a configuration names it, reached through whatever is put around it. */
  section(around: (place: Place) => ObjectDriver): BackendSection {
    const { place, compression } = this;
    const opener = { name: "memory", settingsOf: () => ({ place }), open: async () => around(this) };
    return { opener, config: {}, compression };
  }

  /** What lies there, without markers. */
  get keys(): readonly string[] {
    return [...this.blobs.keys()].filter((key) => !key.startsWith("0".repeat(24)));
  }

  /** Everything but the marker, which is the place's own. */
  empty(): void {
    for (const key of this.keys) this.blobs.delete(key as Parameters<MemoryDriver["delete"]>[0]);
  }
}

/** Places whose codecs differ, with and without digests of their own, and with and without operations on many blobs. */
export function somePlaces(): readonly Place[] {
  return [
    new Place("plain", {}, true, true),
    new Place("packed", { enabled: true, minSizeKbytes: 4 }, false, true),
    new Place("zipped", { enabled: true, minSizeKbytes: 4, algorithm: "gzip" }, true, false),
    new Place("plain too", {}, false, false),
  ];
}
