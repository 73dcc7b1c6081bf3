/**
 * Each pair of steps that may race over a location (the table in `src/objects/states.ts`), in the orders that matter: one step is held between two of
 * its own while the other goes from its begin to its end.
 */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { isCode } from "../../src/errors/index.ts";
import { type PhysicalKey, parsePhysicalKey } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { type Arena, bodyOf, ref } from "./arena.ts";

const call = createCall();
const large = Buffer.alloc(2_000_000, "large ");

type Race = (arena: Arena) => Promise<void>;

/** Resolves once a step that was begun is waiting in the server for a lock of ours, or has ended. */
async function untilItWaits(arena: Arena, work: Promise<unknown>): Promise<void> {
  let isEnded = false;
  const ended = () => {
    isEnded = true;
  };
  work.then(ended, ended);
  while (!isEnded && !(await arena.isSomebodyWaiting())) {
    // The server is asked again.
  }
}

/** An object that is changed under the reader's hands is read as an error, and as itself when it is itself again. */
async function expectRefused(arena: Arena, change: (stored: Buffer) => Buffer): Promise<void> {
  await using store = await arena.store();
  const content = "many words ".repeat(100);
  await arena.put(store, content);
  let key: PhysicalKey | undefined;
  let right = Buffer.alloc(0);
  arena.gates.beforeGet = async (read) => {
    key = read;
    right = Buffer.from(await arena.replace(read, change));
  };
  const failure = await arena.read(store).catch((error: unknown) => error);
  assert.ok(isCode(failure, "OBJECT_DIGEST_MISMATCH"), String(failure));
  assert.ok(key);
  await arena.replace(key, () => right);
  assert.equal(await arena.read(store), content);
}

export const races: Readonly<Record<string, Race>> = {
  async "a backend stores something else than it was given"(arena) {
    // The other vouches for what it has stored.
    if (arena.backend === "database") return;
    await using store = await arena.store();
    arena.gates.afterPut = async (key) => void (await arena.replace(key, () => Buffer.from("something else")));
    await assert.rejects(arena.put(store, "x"));
    assert.equal(await arena.read(store), undefined);
  },

  async "a bit is wrong when an object is read"(arena) {
    await expectRefused(arena, (stored) => {
      const middle = stored.length - 60;
      return Buffer.concat([stored.subarray(0, middle), Buffer.from("!"), stored.subarray(middle + 1)]);
    });
  },

  async "the end is missing when an object is read"(arena) {
    await expectRefused(arena, (stored) => stored.subarray(0, -100));
  },

  async "publish, while the reaper decides"(arena) {
    await using store = await arena.store();
    const staged = await arena.stage(store, "x");
    await arena.transaction(async (tx) => {
      await store.publish(tx, [staged]);
      // From outside it is still pending, and its lease ends; its row is locked, and the reaper goes round it.
      assert.equal(await arena.reap(store), 0);
    });
    assert.equal(await arena.read(store), "x");
  },

  async "the reaper decides, then it is published"(arena) {
    await using store = await arena.store();
    const staged = await arena.stage(store, "x");
    await arena.endLeases();
    let refused: unknown;
    // Between the decision and the bytes.
    arena.gates.beforePurge = async () => {
      refused = await arena.publish(store, [staged]).catch((error: unknown) => error);
    };
    await arena.reap(store);
    assert.ok(isCode(refused, "OBJECT_LEASE_LOST"), String(refused));
    assert.equal(await arena.read(store), undefined);
  },

  async "a leased location is left alone"(arena) {
    await using store = await arena.store();
    const staged = await arena.stage(store, "x");
    assert.equal(await arena.reap(store), 0);
    await arena.publish(store, [staged]);
    assert.equal(await arena.read(store), "x");
  },

  async "a lease is renewed before the reaper looks"(arena) {
    await using store = await arena.store();
    arena.gates.afterPut = () => arena.endLeases();
    // The proof renews it.
    const staged = await arena.stage(store, "x");
    assert.equal(await arena.reap(store), 0);
    await arena.publish(store, [staged]);
    assert.equal(await arena.read(store), "x");
  },

  async "the reaper decides before a lease is renewed"(arena) {
    await using store = await arena.store();
    arena.gates.afterPut = async () => {
      await arena.endLeases();
      await arena.reap(store);
    };
    const failure = await arena.stage(store, "x").catch((error: unknown) => error);
    // Where what was stored is read back, that it is gone is noticed first.
    assert.ok(isCode(failure, "OBJECT_LEASE_LOST", "BACKEND_KEY_MISSING"), String(failure));
    assert.equal(await arena.read(store), undefined);
  },

  async "a lease is renewed while the reaper deletes"(arena) {
    await using store = await arena.store();
    const staged = await arena.stage(store, "x");
    await arena.endLeases();
    let isRenewed = false;
    arena.gates.afterPurge = async () => {
      isRenewed = await arena.renew(staged);
      if (isRenewed) await arena.publish(store, [staged]);
    };
    await arena.reap(store);
    assert.equal(isRenewed, false);
    assert.equal(await arena.read(store), undefined);
  },

  async "two publish the same object"(arena) {
    await using store = await arena.store();
    const [one, other] = [await arena.stage(store, "one"), await arena.stage(store, "other")];
    let second: Promise<void> = Promise.resolve();
    await arena.transaction(async (tx) => {
      await store.publish(tx, [one]);
      second = arena.publish(store, [other]);
      await untilItWaits(arena, second);
    });
    await second;
    assert.equal(await arena.read(store), "other");
    assert.deepEqual([await arena.stateOf(one), await arena.stateOf(other)], ["retired", "live"]);
    assert.equal((await store.find(ref, call))?.version, 2);
  },

  async "two overwrite the same object"(arena) {
    await using store = await arena.store();
    const before = await arena.put(store, "before");
    const [one, other] = [await arena.stage(store, "one"), await arena.stage(store, "other")];
    let second: Promise<void> = Promise.resolve();
    await arena.transaction(async (tx) => {
      await store.publish(tx, [one]);
      second = arena.publish(store, [other]);
      await untilItWaits(arena, second);
    });
    await second;
    assert.equal(await arena.read(store), "other");
    const states = [await arena.stateOf(before), await arena.stateOf(one), await arena.stateOf(other)];
    assert.deepEqual(states, ["retired", "retired", "live"]);
    assert.equal((await store.find(ref, call))?.version, 3);
  },

  async "two publish the same object, and the first takes it back"(arena) {
    await using store = await arena.store();
    const [one, other] = [await arena.stage(store, "one"), await arena.stage(store, "other")];
    let second: Promise<void> = Promise.resolve();
    const first = arena.transaction(async (tx) => {
      await store.publish(tx, [one]);
      second = arena.publish(store, [other]);
      await untilItWaits(arena, second);
      throw new RangeError("taken back");
    });
    await assert.rejects(first, RangeError);
    await second;
    assert.equal(await arena.read(store), "other");
    assert.deepEqual([await arena.stateOf(one), await arena.stateOf(other)], ["pending", "live"]);
  },

  async "an overwrite, then it is retired"(arena) {
    await using store = await arena.store();
    const before = await arena.put(store, "before");
    const staged = await arena.stage(store, "new");
    let retiring: Promise<boolean> = Promise.resolve(false);
    await arena.transaction(async (tx) => {
      await store.publish(tx, [staged]);
      retiring = arena.transaction((other) => store.retire(other, ref));
      await untilItWaits(arena, retiring);
    });
    assert.equal(await retiring, true);
    assert.equal(await arena.read(store), undefined);
    assert.deepEqual([await arena.stateOf(before), await arena.stateOf(staged)], ["retired", "retired"]);
  },

  async "it is retired, then overwritten"(arena) {
    await using store = await arena.store();
    const before = await arena.put(store, "before");
    const staged = await arena.stage(store, "new");
    let publishing: Promise<void> = Promise.resolve();
    await arena.transaction(async (tx) => {
      await store.retire(tx, ref);
      publishing = arena.publish(store, [staged]);
      await untilItWaits(arena, publishing);
    });
    await publishing;
    assert.equal(await arena.read(store), "new");
    assert.deepEqual([await arena.stateOf(before), await arena.stateOf(staged)], ["retired", "live"]);
  },

  async "two retire the same object"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    let second: Promise<boolean> = Promise.resolve(true);
    await arena.transaction(async (tx) => {
      assert.equal(await store.retire(tx, ref), true);
      second = arena.transaction((other) => store.retire(other, ref));
      await untilItWaits(arena, second);
    });
    assert.equal(await second, false);
  },

  async "two reapers take the same location"(arena) {
    await using store = await arena.store();
    await using other = await arena.store();
    await arena.put(store, "x");
    await arena.transaction((tx) => store.retire(tx, ref));
    // One is held between the decision and the bytes, while the other goes all the way.
    arena.gates.beforePurge = async () => void (await arena.reap(other));
    await arena.reap(store);
  },

  async "two reapers, one of them held after the bytes have gone"(arena) {
    await using store = await arena.store();
    await using other = await arena.store();
    await arena.put(store, "x");
    await arena.transaction((tx) => store.retire(tx, ref));
    arena.gates.afterPurge = async () => void (await arena.reap(other));
    await arena.reap(store);
    assert.equal(await arena.read(store), undefined);
  },

  async "a put arrives after the reaper was there"(arena) {
    await using store = await arena.store();
    let key = "";
    arena.gates.beforePut = async (physicalKey) => {
      key = physicalKey;
      throw new RangeError("its writer is gone");
    };
    await assert.rejects(arena.stage(store, "x"), RangeError);
    await arena.endLeases();
    await arena.reap(store);
    await (await arena.driver()).put(parsePhysicalKey(key), bodyOf("late"), call);
    assert.deepEqual(await arena.violations(), []);
    await arena.age(61);
    assert.equal(await arena.reap(store), 1);
  },

  async "a put that was proven arrives once more after the reaper was there"(arena) {
    // The statements of a database do not.
    if (arena.backend === "database") return;
    await using store = await arena.store();
    let key = "";
    arena.gates.afterPut = async (physicalKey) => {
      key = physicalKey;
    };
    await arena.put(store, "x");
    await arena.transaction((tx) => store.retire(tx, ref));
    await arena.reap(store);
    await (await arena.driver()).put(parsePhysicalKey(key), bodyOf("late"), call);
    assert.deepEqual(await arena.violations(), []);
    await arena.age(61);
    assert.equal(await arena.reap(store), 1);
  },

  async "an object is overwritten and reaped before its first byte is read"(arena) {
    await using store = await arena.store();
    await arena.put(store, "old");
    arena.gates.beforeGet = async () => {
      // The put reads nothing here that would pass the gate again: it opens once.
      await arena.put(store, "new");
      await arena.reap(store);
    };
    assert.equal(await arena.read(store), "new");
  },

  async "an object is retired and reaped before its first byte is read"(arena) {
    await using store = await arena.store();
    await arena.put(store, "old");
    arena.gates.beforeGet = async () => {
      await arena.transaction((tx) => store.retire(tx, ref));
      await arena.reap(store);
    };
    assert.equal(await arena.read(store), undefined);
  },

  async "an object is overwritten and reaped while it is read, without grace"(arena) {
    await using store = await arena.store();
    await arena.put(store, large);
    const { body } = await store.get(ref, call);
    const pieces: Buffer[] = [];
    const read = async () => {
      for await (const piece of body) {
        if (pieces.push(piece as Buffer) !== 1) continue;
        await arena.put(store, "new");
        await arena.reap(store);
      }
    };
    const failure: unknown = await read().then(
      () => undefined,
      (error: unknown) => error,
    );
    // Files that are open stay, chunks do not; either way nothing ends too soon.
    if (failure === undefined) assert.ok(Buffer.concat(pieces).equals(large));
    else assert.ok(isCode(failure, "BACKEND_KEY_MISSING"), String(failure));
  },

  async "an object is overwritten and reaped while it is read, within the grace"(arena) {
    await using store = await arena.store({ retireGraceSeconds: 900 });
    await arena.put(store, large);
    const { body } = await store.get(ref, call);
    const pieces: Buffer[] = [];
    let isOpen = true;
    for await (const piece of body as AsyncIterable<Buffer>) {
      pieces.push(piece);
      if (!isOpen) continue;
      isOpen = false;
      await arena.put(store, "new");
      assert.equal(await arena.reap(store), 0);
    }
    assert.ok(Buffer.concat(pieces).equals(large));
    // Nobody who comes later is kept from reading it either: those who have looked up its place, but not opened it.
    assert.equal(await arena.countOf("retired"), 1);
  },

  async "a scrub, while an object is put"(arena) {
    await using store = await arena.store();
    arena.gates.afterPut = async () => {
      const { findings, damaged } = await arena.scrub(store);
      assert.deepEqual([findings, damaged], [[], 0]);
    };
    await arena.put(store, "x");
  },

  async "an object is put while a scrub lists"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    arena.gates.afterList = async () => void (await arena.put(store, "y", { ...ref, key: "other" }));
    const { findings, damaged } = await arena.scrub(store);
    assert.deepEqual([findings, damaged], [[], 0]);
  },

  async "an object is overwritten and reaped between a scrub's listing and its reading"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    arena.gates.afterList = async () => {
      await arena.put(store, "y");
      await arena.reap(store);
    };
    const { findings, damaged } = await arena.scrub(store);
    assert.deepEqual([findings, damaged], [[], 0]);
  },

  async "an object is retired and reaped while a scrub reads it"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    arena.gates.beforeGet = async () => {
      await arena.transaction((tx) => store.retire(tx, ref));
      await arena.reap(store);
    };
    const { findings, damaged } = await arena.scrub(store);
    assert.deepEqual([findings, damaged], [[], 0]);
  },

  async "two scrubs"(arena) {
    await using store = await arena.store();
    await using other = await arena.store();
    await arena.put(store, "x");
    arena.gates.beforeGet = async () => {
      const { findings, damaged } = await arena.scrub(other);
      assert.deepEqual([findings, damaged], [[], 0]);
    };
    const { findings, damaged } = await arena.scrub(store);
    assert.deepEqual([findings, damaged], [[], 0]);
  },

  async "two scrubs begin at the same moment"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    let scrubbing: ReturnType<Arena["scrub"]> | undefined;
    await arena.transaction(async (tx) => {
      // As the other one does it; nobody sees it yet.
      await tx.sql.insertInto("scrubs").values({ share: 1, seed: 1 }).execute();
      scrubbing = arena.scrub(store);
      await untilItWaits(arena, scrubbing);
    });
    const report = await scrubbing;
    assert.deepEqual([report?.findings, report?.isResumed, report?.objects], [[], true, 1]);
  },

  async "an object is overwritten before it lies at its copy"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    const version = await store.find(ref, call);
    assert.ok(version);
    const copy = await arena.stage(store, "x");
    await arena.put(store, "new");
    assert.equal(await arena.transaction((tx) => store.relocate(tx, version, copy)), false);
    assert.equal(await arena.read(store), "new");
    assert.deepEqual(await arena.violations(), []);
  },

  async "an object is overwritten while it moves to its copy"(arena) {
    await using store = await arena.store();
    const before = await arena.put(store, "x");
    const version = await store.find(ref, call);
    assert.ok(version);
    const copy = await arena.stage(store, "x");
    const staged = await arena.stage(store, "new");
    let publishing: Promise<void> = Promise.resolve();
    await arena.transaction(async (tx) => {
      assert.equal(await store.relocate(tx, version, copy), true);
      publishing = arena.publish(store, [staged]);
      await untilItWaits(arena, publishing);
    });
    await publishing;
    assert.equal(await arena.read(store), "new");
    assert.deepEqual([await arena.stateOf(before), await arena.stateOf(copy)], ["retired", "retired"]);
  },

  async "an object moves to its copy while it is read"(arena) {
    await using store = await arena.store();
    await arena.put(store, "x");
    const version = await store.find(ref, call);
    assert.ok(version);
    const copy = await arena.stage(store, "x");
    arena.gates.beforeGet = async () => {
      await arena.transaction((tx) => store.relocate(tx, version, copy));
      await arena.reap(store);
    };
    assert.equal(await arena.read(store), "x");
  },

  async "the body of a put takes longer than its lease, and the reaper comes"(arena) {
    await using store = await arena.store();
    async function* pieces() {
      yield large.subarray(0, 1_000_000);
      await arena.endLeases();
      await arena.reap(store);
      yield large.subarray(1_000_000);
    }
    const failure = await store
      .stage(ref, { open: async () => Readable.from(pieces()) }, call)
      .catch((error: unknown) => error);
    assert.ok(failure instanceof Error);
    assert.equal(await arena.read(store), undefined);
  },
};

/** Runs one, and looks at what it leaves. */
export async function runRace(name: string, arena: Arena): Promise<void> {
  const race = races[name];
  if (race === undefined) throw new Error(`no such race: ${name}`);
  await race(arena);
  assert.deepEqual(await arena.violations(), []);
  assert.deepEqual(await arena.leftovers(), []);
  await using store = await arena.store();
  // What is visible can be read whole.
  if ((await store.find(ref, call)) !== undefined) await buffer((await store.get(ref, call)).body);
}
