import { randomUUID } from "node:crypto";
import type { Compression } from "../config/index.ts";
import type { Database } from "../db/index.ts";
import { announce, type Call, freeAtOnce } from "../runtime/index.ts";
import type { Codec } from "./codec.ts";
import type { StatementPuts } from "./driver.ts";
import { Gathering } from "./gathering.ts";
import { createPhysicalKey } from "./physical-key.ts";
import { insertProven, type ProvenLocation, reserveLocationIds } from "./rows/locations.ts";
import type { ObjectBody, ObjectRef, StagedObject } from "./store.ts";
import { type WholeSource, writtenShort } from "./written-body.ts";

/** Objects that one statement stores: each number of them is a statement of its own to the server, and more of them would save little more. */
const storedTogetherMax = 6;
const idsAtOnce = 64;

interface Place {
  readonly backendId: number;
  readonly puts: StatementPuts;
  readonly compression: Compression;
  headerOf(ref: ObjectRef, locationId: number): (codec: Codec) => Buffer;
}

type Wanted = ProvenLocation & Pick<WholeSource, "bytes" | "sha256">;

/**
 * Stores short bodies at a backend that lies in the store's own database: row, bytes and proof come in one statement, so that none of them is ever there
 * without the others. What is asked for while one is under way goes in the next one together.
 */
export class StatementStaging {
  readonly #place: Place;
  readonly #stored: Gathering<Wanted, boolean>;
  readonly #ids: Gathering<undefined, number>;

  constructor(database: Database, place: Place, leaseSeconds: number) {
    this.#place = place;
    this.#stored = new Gathering(storedTogetherMax, async (wanted) => {
      const blobs = wanted.map(({ physicalKey: key, bytes, sha256 }) => ({ key, bytes, sha256 }));
      const puts = place.puts.expressions(blobs);
      const there = await insertProven(database, place.backendId, wanted, puts, leaseSeconds);
      return wanted.map(({ locationId }) => there.has(locationId));
    });
    let ahead: readonly number[] = [];
    this.#ids = new Gathering(idsAtOnce, async ({ length }) => {
      if (ahead.length < length) ahead = await reserveLocationIds(database, idsAtOnce);
      const ids = ahead.slice(0, length);
      ahead = ahead.slice(length);
      return ids;
    });
  }

  /** Nothing for a body that has to go another way: it is too long, has arrived damaged, or is to lie elsewhere. */
  async stage(ref: ObjectRef, body: ObjectBody, call: Call): Promise<StagedObject | undefined> {
    const { puts, compression, headerOf } = this.#place;
    if ((body.bytes?.length ?? body.sizeBytes ?? Number.POSITIVE_INFINITY) > puts.bytesMax) return undefined;
    const locationId = await this.#ids.ask(undefined);
    const short = await writtenShort(body, compression, headerOf(ref, locationId), call);
    if (short === undefined || short.source.bytes.length > puts.bytesMax) return undefined;
    const { bytes, sha256 } = short.source;
    const location = { locationId, physicalKey: createPhysicalKey(), ref, writer: randomUUID() };
    if (!(await this.#stored.ask({ ...location, ...short.written(), bytes, sha256 }))) return undefined;
    // It was sent once, and the server has it.
    freeAtOnce(bytes);
    announce("objects proven", { locationId });
    const { contentDigest, contentBytes, storedBytes } = short.written();
    return { ref, locationId, contentDigest, contentBytes, storedBytes };
  }
}
