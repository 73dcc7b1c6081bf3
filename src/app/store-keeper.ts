import type { Database } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { type ImageRecord, listDamaged } from "../images/index.ts";
import type { ObjectStore, StoreMaintenance, UsageReport } from "../objects/index.ts";
import { type Call, plural, systemClock } from "../runtime/index.ts";
import type {
  BackendFailure,
  CollectionReport,
  CollectOptions,
  GarbagePreview,
  ObjectStorage,
  ScrubChoice,
  ScrubSummary,
} from "./object-storage.ts";

/** Locations that one pass of the reaper takes at each backend. */
const passLimit = 500;
/** Damaged images that a report names. */
const imagesShownMax = 1000;

/** Loaded when needed: it brings catalogers and thread pools. */
const analysis = () => import("../analysis/index.ts");

/** See {@link ObjectStorage}. */
export class StoreKeeper implements ObjectStorage {
  readonly #database: Database;
  readonly #store: ObjectStore & StoreMaintenance;
  readonly #account: string;
  readonly #isAlone: boolean;
  #isElsewhereTold = false;

  /** @param isAlone nobody else has the store open, for as long as this lives */
  constructor(database: Database, store: ObjectStore & StoreMaintenance, account: string, isAlone: boolean) {
    this.#isAlone = isAlone;
    this.#database = database;
    this.#store = store;
    this.#account = account;
  }

  async usage(look: boolean, call: Call): Promise<UsageReport> {
    await this.tellElsewhere(call);
    return await this.#store.usage(look, call);
  }

  async previewGarbage(call: Call): Promise<GarbagePreview> {
    const { previewUnusedLayers } = await analysis();
    const stored = await this.#store.reclaimable(call);
    return {
      unusedLayers: await previewUnusedLayers(this.#database, this.#store, call),
      stored: stored.map(({ backendId: _, ...rest }) => rest),
    };
  }

  async collectGarbage({ compact, progress }: CollectOptions, call: Call): Promise<CollectionReport> {
    await this.tellElsewhere(call);
    const layersRetired = await this.#retireLayers(call);
    const due = (await this.#store.reclaimable(call)).filter(({ isDue }) => isDue);
    const task = progress.begin(
      "reclaiming",
      due.reduce((sum, { bytes }) => sum + bytes, 0),
    );
    const reclaimed = new Map<string, CollectionReport["reclaimed"][number]>();
    const failures = new Map<string, BackendFailure>();
    for (;;) {
      const pass = await this.#store.reap(passLimit, call);
      task.advance(pass.bytesDeleted);
      for (const { backend: place, blobs, bytes, unmeasured } of pass.backends) {
        const before = reclaimed.get(place) ?? { blobs: 0, bytes: 0, unmeasured: 0 };
        reclaimed.set(place, {
          place,
          blobs: before.blobs + blobs,
          bytes: before.bytes + bytes,
          unmeasured: before.unmeasured + unmeasured,
        });
      }
      for (const { backend: place, error } of pass.failures) {
        if (!failures.has(place)) failures.set(place, { place, error });
      }
      // What can't be deleted is still there in the next pass, and would be in all that follow.
      const isStuck = pass.failures.length > 0 && pass.blobsDeleted === 0;
      if (!pass.isMoreLeft || isStuck) break;
    }
    const blobs = [...reclaimed.values()].reduce((sum, each) => sum + each.blobs, 0);
    task.end(`${plural(blobs, "document")} deleted`);
    return {
      layersRetired,
      reclaimed: [...reclaimed.values()],
      failures: [...failures.values()],
      left: await this.previewGarbage(call),
      ...(compact ? { compaction: await this.#store.compact(call) } : {}),
    };
  }

  async #retireLayers(call: Call): Promise<number> {
    const { retireUnusedLayers } = await analysis();
    let all = 0;
    for (;;) {
      const retired = await retireUnusedLayers(
        this.#database,
        this.#store,
        { limit: passLimit, isAlone: this.#isAlone },
        call,
      );
      all += retired;
      if (retired < passLimit) return all;
    }
  }

  async scrub(
    { share, bytesPerSecondMax, repair, restart, begin, progress }: ScrubChoice,
    call: Call,
  ): Promise<ScrubSummary> {
    await this.tellElsewhere(call);
    const { giveUpDocument } = await analysis();
    const report = await this.#store.scrub(
      {
        share,
        ...(bytesPerSecondMax === undefined ? {} : { bytesPerSecondMax }),
        restart,
        seed: Math.floor(Math.random() * 2 ** 31),
        clock: systemClock,
        begin,
        ...(repair
          ? {
              repair: {
                onLost: (ref, under) => giveUpDocument(this.#database, this.#store, ref, progress, under),
              },
            }
          : {}),
      },
      call,
    );
    const damaged = await listDamaged(this.#database.sql, this.#account, imagesShownMax);
    return {
      ...report,
      findings: report.findings.map(({ backend: place, backendId: _, ...rest }) => ({ place, ...rest })),
      failures: [
        ...report.failures.map(({ backend: place, error }) => ({ place, error })),
        ...(await this.#outOfReach(call)),
      ],
      damagedImages: damaged.count,
      images: damaged.images.map(({ digest, fullTags, damage = "" }: ImageRecord) => ({ digest, fullTags, damage })),
    };
  }

  /** Places that hold objects and that the configuration does not name: nobody can say that all is well there. */
  async #outOfReach(call: Call): Promise<readonly BackendFailure[]> {
    const places = (await this.#store.elsewhere(call)).filter(({ isConfigured }) => !isConfigured);
    return places.map(({ place }) => {
      const [driver = place] = place.split(" ", 1);
      const hint = "name it in services.catalog.other_object_stores";
      return { place, error: new StowageError("BACKEND_UNKNOWN", { driver, place }, { hint }) };
    });
  }

  claim(call: Call): Promise<readonly string[]> {
    return this.#store.claim(call);
  }

  /** Says once what lies where new objects do not go. For commands that write: it costs a query that counts all objects. */
  async tellElsewhere(call: Call): Promise<void> {
    if (this.#isElsewhereTold) return;
    this.#isElsewhereTold = true;
    for (const { place, goesTo } of await this.#store.redirected(call)) {
      call.log.warn(
        { place, goesTo },
        "new objects do not go where the configuration says: an online migration has moved the store; put the configuration of its destination in place",
      );
    }
    for (const { place, isConfigured, objects } of await this.#store.elsewhere(call)) {
      if (isConfigured) {
        call.log.warn(
          { place, objects },
          "objects lie where new ones do not go; they are read there, and stowage objectstorage migrate moves them",
        );
      } else {
        call.log.error(
          { place, objects },
          "objects lie at a place that the configuration does not name and can't be read; name it in services.catalog.other_object_stores",
        );
      }
    }
  }
}
