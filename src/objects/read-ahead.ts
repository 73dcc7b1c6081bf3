import { type Call, throwIfAborted } from "../runtime/index.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { readShortStored } from "./location-reader.ts";
import type { Located } from "./rows/locations.ts";

/** What is longer is read alone. */
const eachBytesMax = 256 * 1024;
/** Together in one request. */
const bytesMax = 1024 * 1024;
const countMax = 32;

/**
 * Stored bytes of locations that are read one after the other: where a backend can give many at once, short ones come with those after them. Whoever asks
 * in the given order holds two requests' worth of them at a time.
 */
export class ReadAhead {
  /** Not asked for yet, in their order. */
  readonly #waiting: Map<number, Located>;
  readonly #asked = new Map<number, Promise<ReadonlyMap<PhysicalKey, Buffer>>>();

  constructor(locations: readonly Located[]) {
    const short = locations.filter(({ storedBytes }) => storedBytes <= eachBytesMax);
    this.#waiting = new Map(short.map((location) => [location.locationId, location]));
  }

  /** The stored bytes of a short location, which `driver` reads; once for each. */
  async read(driver: ObjectDriver, at: Located, call: Call): Promise<Buffer> {
    if (this.#waiting.has(at.locationId)) this.#ask(driver, at, call);
    const found = await this.#asked.get(at.locationId);
    this.#asked.delete(at.locationId);
    return found?.get(at.physicalKey) ?? (await readShortStored(driver, at, call));
  }

  #ask(driver: ObjectDriver, first: Located, call: Call): void {
    const together: Located[] = [];
    let bytes = 0;
    for (const location of this.#waiting.values()) {
      if (location.backendId !== first.backendId) continue;
      bytes += location.storedBytes;
      if (together.length > 0 && bytes > bytesMax) break;
      if (together.push(location) === countMax) break;
    }
    if (!together.includes(first)) together.push(first);
    for (const { locationId } of together) this.#waiting.delete(locationId);
    if (driver.getMany === undefined || together.length === 1) return;
    const keys = together.map(({ physicalKey }) => physicalKey);
    const answer = driver.getMany(keys, call).catch((error: unknown) => {
      throwIfAborted(call);
      // Each alone will say why.
      call.log.debug({ err: error, driver: driver.name, blobs: keys.length }, "blobs not read together");
      return new Map<PhysicalKey, Buffer>();
    });
    for (const { locationId } of together) this.#asked.set(locationId, answer);
  }
}
