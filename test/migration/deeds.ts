import { buffer } from "node:stream/consumers";
import { sqlStateOf } from "../../src/db/index.ts";
import { isCode } from "../../src/errors/index.ts";
import type { ObjectRef, StagedObject } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import type { SeededRandom } from "../fault/random.ts";
import { bodyOf, type Content, contentOf, digestOf } from "../storm/contents.ts";
import type { Place } from "./place.ts";
import type { Store, World } from "./world.ts";

/** What an object is, as everybody must see it. */
export interface Expected {
  readonly value: string;
  readonly version: number;
}

export interface Surroundings {
  readonly note: (line: string) => void;
  /** The clock jumps, unless it may not. */
  readonly pass: (seconds: number) => Promise<void>;
}

export class Violation extends Error {}

const call = createCall();
const lockNotAvailable = "55P03";
const objectsMax = 10;

/** What services and operators do beside a migration, and what the objects must be after it. Nothing ever goes wrong for them. */
export class Others {
  readonly expected = new Map<string, Expected>();
  /** Its bytes at the source are wrong: nobody can read it until it is written anew. */
  damaged: string | undefined;
  readonly #world: World;
  readonly #random: SeededRandom;
  readonly #surroundings: Surroundings;
  /** Staged, and not yet published. */
  readonly #open: { readonly store: Store; readonly staged: StagedObject; readonly name: string }[] = [];
  /** Where they write. */
  #targets: readonly Place[] = [];
  #serial = 0;

  constructor(world: World, random: SeededRandom, surroundings: Surroundings) {
    this.#world = world;
    this.#random = random;
    this.#surroundings = surroundings;
  }

  set targets(places: readonly Place[]) {
    this.#targets = places;
  }

  /** Something, as the seed will have it. */
  async something(isBetween: boolean): Promise<void> {
    const drawn = this.#random.next();
    const place = this.#random.pick(this.#targets);
    const name = this.#random.pick([...this.expected.keys(), "one/b/new", "two/analysis_archive/new"]);
    const seconds = this.#random.pick([200, 950, 2500]);
    const limit = this.#random.pick([1, 3, 100]);
    if (drawn < 0.06) await this.#tried(`begin a put of ${name} at ${place.place}`, () => this.#beginPut(name, place));
    else if (drawn < 0.12) await this.#tried("end a put", () => this.#finishPut());
    else if (drawn < 0.28) await this.#tried(`put ${name} at ${place.place}`, () => this.put(name, place));
    else if (drawn < 0.38) await this.#tried(`remove ${name}`, () => this.#remove(name));
    else if (drawn < 0.55) await this.#tried(`read ${name}`, () => this.#read(name, place));
    else if (drawn < 0.72) await this.#tried(`reap ${limit}`, () => this.#reap(limit));
    else if (drawn < 0.88) await this.#tried(`${seconds} s pass`, () => this.#surroundings.pass(seconds));
    else if (drawn < 0.94) await this.#tried("what was late arrives", () => this.#world.deliverLate());
    else if (isBetween) await this.#tried(`mend ${name} at ${place.place}`, () => this.#relocate(name, place));
  }

  async put(name: string, place: Place): Promise<void> {
    if (!this.expected.has(name) && this.expected.size >= objectsMax) return;
    const store = this.#world.store(place);
    await this.#publish(store, await store.stage(refOf(name), bodyOf(this.#content(), true), call), name);
  }

  /** A writer that takes its time. */
  async #beginPut(name: string, place: Place): Promise<void> {
    if (!this.expected.has(name) && this.expected.size + this.#open.length >= objectsMax) return;
    const store = this.#world.store(place);
    this.#open.push({ store, name, staged: await store.stage(refOf(name), bodyOf(this.#content(), true), call) });
  }

  async finishPuts(): Promise<void> {
    while (this.#open.length > 0) await this.#finishPut();
  }

  async #finishPut(): Promise<void> {
    const [next] = this.#open;
    if (next === undefined) return;
    const { store, staged, name } = next;
    try {
      await this.#publish(store, staged, name);
      this.#open.shift();
    } catch (error) {
      if (!isCode(error, "OBJECT_LEASE_LOST")) throw error;
      this.#surroundings.note(`      ${name} was written too slowly`);
      this.#open.shift();
    }
  }

  async #publish(store: Store, staged: StagedObject, name: string): Promise<void> {
    const [published] = await this.#world.act((database) =>
      database.transaction((tx) => store.publish(tx, [staged]), call),
    );
    this.expected.set(name, { value: staged.contentDigest, version: published?.version ?? 0 });
    if (this.damaged === name) this.damaged = undefined;
  }

  #content(): Content {
    const serial = ++this.#serial;
    return contentOf(serial, (Math.imul(serial, 0x9e3779b1) >>> 7) % 6000);
  }

  async #remove(name: string): Promise<void> {
    const store = this.#world.store(this.#targets[0] as Place);
    const isThere = await this.#world.act((database) =>
      database.transaction((tx) => store.retire(tx, refOf(name)), call),
    );
    if (isThere !== this.expected.has(name)) throw new Violation(`${name} was ${isThere ? "there" : "not there"}`);
    this.expected.delete(name);
    if (this.damaged === name) this.damaged = undefined;
  }

  async #read(name: string, place: Place): Promise<void> {
    if (name === this.damaged) return;
    const expected = this.expected.get(name);
    try {
      const { version, body } = await this.#world.store(place).get(refOf(name), call);
      const value = digestOf(await buffer(body));
      const isRight = value === expected?.value && version.version === expected.version;
      if (!isRight)
        throw new Violation(
          `${name} is read as ${value} (${version.version}) instead of ${expected?.value} (${expected?.version})`,
        );
    } catch (error) {
      if (isCode(error, "OBJECT_NOT_FOUND") && expected === undefined) return;
      throw error instanceof Violation ? error : new Violation(`${name} can't be read: ${(error as Error).stack}`);
    }
  }

  async #reap(limit: number): Promise<void> {
    await this.#world.act(() => this.#world.store(this.#targets[0] as Place).reap(limit, call));
  }

  /** The same version at another place, as a scrub does that mends from a copy. */
  async #relocate(name: string, place: Place): Promise<void> {
    if (name === this.damaged || !this.expected.has(name)) return;
    const store = this.#world.store(place);
    const { version, body } = await store.get(refOf(name), call);
    const bytes = await buffer(body);
    const content = { serial: 0, bytes, digest: digestOf(bytes) };
    const staged = await store.stage(refOf(name), bodyOf(content, true), call);
    await this.#world.act((database) => database.transaction((tx) => store.relocate(tx, version, staged), call));
  }

  /** What whoever migrates holds locked is left alone. */
  async #tried(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
      this.#surroundings.note(`      ${what}`);
    } catch (error) {
      if (sqlStateOf(error) !== lockNotAvailable) throw error;
      this.#surroundings.note(`      ${what}: it is locked`);
    }
  }
}

export function refOf(name: string): ObjectRef {
  const [account = "", bucket = "", key = ""] = name.split("/");
  return { account, bucket, key };
}
