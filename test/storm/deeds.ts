import { buffer } from "node:stream/consumers";
import { isCode } from "../../src/errors/index.ts";
import type { ObjectRef, ObjectVersion, StagedObject } from "../../src/objects/index.ts";
import { createCall, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { bodyOf, type Content, contentOf, digestOf } from "./contents.ts";
import { type Model, nameOf, type Together, type Value } from "./model.ts";
import type { Draft, Operation } from "./plan.ts";
import type { Store, World } from "./world.ts";

const call = createCall();

class RolledBack extends Error {
  override readonly message = "rolled back";
}

/** Up to this size nothing is handed on before all of it was checked. */
const checkedFirstBytesMax = 1024 * 1024;

/** Does what the plan says, and tells the model. Its own failures are the world's weather. */
export class Doer {
  readonly #world: World;
  readonly #model: Model;
  /** All that was ever written, by its digest. */
  readonly #contents = new Map<string, Content | Pick<Draft, "serial" | "sizeBytes">>();

  constructor(world: World, model: Model) {
    this.#world = world;
    this.#model = model;
  }

  async do(operation: Operation): Promise<void> {
    const store = this.#world.store(operation.store);
    switch (operation.kind) {
      case "put":
        return await this.#put(operation.number, store, operation.store, operation);
      case "failingPut": {
        const content = this.#contentOf(operation.draft);
        await store.stage(operation.draft.ref, bodyOf(content, true, operation.failAfter), call);
        throw new TypeError("a body that fails was stored");
      }
      case "retire":
        return await this.#retire(operation.number, store, operation.store, operation.ref);
      case "exchange":
        return await this.#exchange(operation.number, store, operation.store, operation.ref, operation.draft);
      case "get":
        return await this.#get(operation.number, store, operation.ref, operation.pauses);
      case "getPart":
        return await this.#getPart(operation.number, store, operation.ref, operation.sizeBytes);
      case "find": {
        const version = await store.find(operation.ref, call);
        return this.#saw(operation.number, operation.ref, version?.contentDigest ?? "absent");
      }
      case "reap":
        await store.reap(operation.limit, call);
        return;
      case "scrub": {
        const { share, restart, isRepairing } = operation;
        const repair = isRepairing ? { repair: { onLost: async () => false } } : {};
        const begin = () => silentProgress.begin("", undefined);
        await store.scrub({ share, restart, seed: operation.number, clock: systemClock, begin, ...repair }, call);
        return;
      }
      case "usage":
        await store.usage(true, call);
        await store.reclaimable(call);
        return;
      case "cut":
        await this.#pause(operation.pauses);
        return await this.#world.cutSessions();
      case "jump":
        await this.#pause(operation.pauses);
        return await this.#world.jump(operation.seconds);
      case "expire":
        await this.#pause(operation.pauses);
        await this.#world.jump(operation.seconds);
        await store.reap(100, call);
    }
  }

  /** What an object is now, read whole where it can be. */
  async look(store: Store, ref: ObjectRef): Promise<Value> {
    try {
      const { body } = await store.get(ref, call);
      return digestOf(await buffer(body));
    } catch (error) {
      if (isCode(error, "OBJECT_NOT_FOUND")) return "absent";
      // The configuration names no place where it lies; the row is still to be right.
      if (isCode(error, "BACKEND_UNKNOWN")) return (await store.find(ref, call))?.contentDigest ?? "absent";
      throw error;
    }
  }

  async #put(
    number: number,
    store: Store,
    database: 0 | 1,
    { drafts, end, pauses }: Extract<Operation, { kind: "put" }>,
  ): Promise<void> {
    const staged: StagedObject[] = [];
    for (const draft of drafts) {
      staged.push(await store.stage(draft.ref, bodyOf(this.#contentOf(draft), number % 2 === 0), call));
    }
    if (end === "abandon") return;
    await this.#pause(pauses);
    const values = new Map(staged.map(({ ref, contentDigest }) => [nameOf(ref), contentDigest]));
    await this.#inTransaction(this.#model.intend(number, values), database, async (tx) => {
      const versions = await store.publish(tx, staged);
      if (end === "rollback") throw new RolledBack();
      return versions;
    });
  }

  async #retire(number: number, store: Store, database: 0 | 1, ref: ObjectRef): Promise<void> {
    await this.#inTransaction(
      this.#model.intend(number, new Map([[nameOf(ref), "absent"]])),
      database,
      async (tx): Promise<readonly ObjectVersion[]> => {
        await store.retire(tx, ref);
        return [];
      },
    );
  }

  async #exchange(number: number, store: Store, database: 0 | 1, ref: ObjectRef, draft: Draft): Promise<void> {
    const staged = await store.stage(draft.ref, bodyOf(this.#contentOf(draft), true), call);
    const values = new Map<string, Value>([
      [nameOf(ref), "absent"],
      [nameOf(draft.ref), staged.contentDigest],
    ]);
    await this.#inTransaction(this.#model.intend(number, values), database, async (tx) => {
      await store.retire(tx, ref);
      return await store.publish(tx, [staged]);
    });
  }

  /** Whoever hears that it was done, or that it can't have been, believes it; all else may have happened. */
  async #inTransaction(
    writes: Together,
    database: 0 | 1,
    work: (tx: Parameters<Store["publish"]>[0]) => Promise<readonly ObjectVersion[]>,
  ): Promise<void> {
    try {
      const versions = await this.#world.databases[database].transaction(work, call);
      for (const write of writes) {
        write.fate = "done";
        const version = versions.find(({ ref }) => nameOf(ref) === write.name)?.version;
        if (version !== undefined) write.version = version;
      }
    } catch (error) {
      const isSure = error instanceof RolledBack || isCode(error, "OBJECT_LEASE_LOST");
      if (!isSure) for (const write of writes) write.fate = "unknown";
      throw error;
    }
  }

  async #get(number: number, store: Store, ref: ObjectRef, pauses: number): Promise<void> {
    const opened = await this.#open(number, store, ref);
    if (opened === undefined) return;
    const pieces: Buffer[] = [];
    for await (const piece of opened.body) {
      pieces.push(piece as Buffer);
      await this.#pause(pauses);
    }
    const bytes = Buffer.concat(pieces);
    this.#saw(number, ref, digestOf(bytes));
    this.#saw(number, ref, opened.version.contentDigest);
  }

  async #getPart(number: number, store: Store, ref: ObjectRef, sizeBytes: number): Promise<void> {
    const opened = await this.#open(number, store, ref);
    if (opened === undefined) return;
    const pieces: Buffer[] = [];
    let length = 0;
    for await (const piece of opened.body) {
      pieces.push(piece as Buffer);
      length += (piece as Buffer).length;
      if (length >= sizeBytes) break;
    }
    const { contentDigest, contentBytes } = opened.version;
    this.#saw(number, ref, contentDigest);
    if (contentBytes > checkedFirstBytesMax) return;
    const known = this.#contents.get(contentDigest);
    const whole = known && contentOf(known.serial, contentBytes).bytes;
    const part = Buffer.concat(pieces);
    if (!whole?.subarray(0, part.length).equals(part)) this.#saw(number, ref, `wrong part of ${contentDigest}`);
  }

  async #open(number: number, store: Store, ref: ObjectRef): Promise<Awaited<ReturnType<Store["get"]>> | undefined> {
    try {
      return await store.get(ref, call);
    } catch (error) {
      if (!isCode(error, "OBJECT_NOT_FOUND")) throw error;
      this.#saw(number, ref, "absent");
      return undefined;
    }
  }

  /** By journeys to the database: others take as many for their steps. */
  async #pause(journeys: number): Promise<void> {
    for (let journey = 0; journey < journeys; journey++) await this.#world.journey();
  }

  #saw(operation: number, ref: ObjectRef, value: Value): void {
    this.#model.saw({ operation, name: nameOf(ref), value });
  }

  #contentOf({ serial, sizeBytes }: Draft): Content {
    const content = contentOf(serial, sizeBytes);
    this.#contents.set(content.digest, { serial, sizeBytes });
    return content;
  }
}
