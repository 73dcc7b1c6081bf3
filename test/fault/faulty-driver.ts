import { Readable } from "node:stream";
import { codes, type ErrorCode, StowageError } from "../../src/errors/index.ts";
import type {
  BodySource,
  ByteRange,
  DoomedBlob,
  DriverCapabilities,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "../../src/objects/index.ts";
import { type Call, createCall, throwIfAborted } from "../../src/runtime/index.ts";
import { createRandom } from "./random.ts";

export type FaultyOperation = "put" | "get" | "delete" | "purge" | "list";

/** What goes wrong. Where a size or place is left out, it is the middle. */
export type Fault =
  /** Fails with a code: before anything was done, or though all was done. */
  | { readonly kind: "fail"; readonly code: ErrorCode; readonly when: "before" | "after" }
  /** Never answers: nothing was done, or all was. Ends with its call only. */
  | { readonly kind: "stall"; readonly when: "before" | "after" }
  /** `get`: the stream fails with a code, `list`: fails, after so many bytes or keys. */
  | { readonly kind: "break"; readonly code: ErrorCode; readonly after?: number }
  /** `get`: the stream says nothing more after so many bytes. */
  | { readonly kind: "hang"; readonly after?: number }
  /** `get`: ends early, without a failure. */
  | { readonly kind: "truncate"; readonly after?: number }
  /** `get`: a bit of what is read, `put`: of what is stored, is another. */
  | { readonly kind: "flip"; readonly bit?: number }
  /** `get`: the bytes of another blob, where there is one. */
  | { readonly kind: "misdirect" }
  /** `put`: stores the first bytes only and reports success, with the size of all. */
  | { readonly kind: "torn"; readonly after?: number }
  /** `put`, `delete`, `purge`: done twice; the second answer, that of the repeated request, is given. */
  | { readonly kind: "twice" }
  /** `put`, `delete`, `purge`: fails as unreachable, and is done so many operations later. */
  | { readonly kind: "late"; readonly operations: number }
  /** `list`: as it was so many operations ago. */
  | { readonly kind: "stale"; readonly operations: number };

/** A fault for the n-th call of an operation; the first is 1. */
export interface PlannedFault {
  readonly operation: FaultyOperation;
  readonly nth: number;
  readonly fault: Fault;
}

export interface InjectedFault extends PlannedFault {
  readonly key?: PhysicalKey;
}

/** Decides what happens to a call; asked once for each, in their order. */
export type FaultChoice = (operation: FaultyOperation, nth: number) => Fault | undefined;

export function plannedFaults(plan: readonly PlannedFault[]): FaultChoice {
  return (operation, nth) => plan.find((entry) => entry.operation === operation && entry.nth === nth)?.fault;
}

export interface RandomFaultOptions {
  readonly seed: number;
  /** From 0 to 1: the share of calls that go wrong. */
  readonly rate: number;
  /** Default: all of them, but for `stall` and `hang`, which need a watch that ends them. */
  readonly kinds?: readonly Fault["kind"][];
}

const kindsOf: Readonly<Record<FaultyOperation, readonly Fault["kind"][]>> = {
  put: ["fail", "stall", "flip", "torn", "twice", "late"],
  get: ["fail", "stall", "break", "hang", "truncate", "flip", "misdirect"],
  delete: ["fail", "stall", "twice", "late"],
  purge: ["fail", "stall", "twice", "late"],
  list: ["fail", "stall", "break", "stale"],
};
const passingCodes: readonly ErrorCode[] = ["BACKEND_UNREACHABLE", "BACKEND_FAILED", "BACKEND_THROTTLED"];
const lastingCodes: readonly ErrorCode[] = ["BACKEND_DENIED", "BACKEND_FULL"];

/** The same seed and the same calls give the same faults. */
export function randomFaults({ seed, rate, kinds }: RandomFaultOptions): FaultChoice {
  const random = createRandom(seed);
  return (operation) => {
    // The same number of draws for each call, so that one decision more does not change all later ones.
    const draws = Array.from({ length: 5 }, () => random.next());
    const [chance = 0, kind = 0, code = 0, when = 0, size = 0] = draws;
    if (chance >= rate) return undefined;
    const possible = kindsOf[operation].filter(
      (name) => kinds?.includes(name) ?? (name !== "stall" && name !== "hang"),
    );
    if (possible.length === 0) return undefined;
    return faultOf(possible[Math.floor(kind * possible.length)] as Fault["kind"], code, when, size, operation);
  };
}

function faultOf(kind: Fault["kind"], code: number, when: number, size: number, operation: FaultyOperation): Fault {
  const isLasting = code > 0.9;
  const among = isLasting ? lastingCodes : passingCodes;
  // A full backend refuses puts only.
  const name = among[Math.floor(((code * 10) % 1) * among.length)] as ErrorCode;
  const chosen = name === "BACKEND_FULL" && operation !== "put" ? "BACKEND_DENIED" : name;
  const at = Math.floor(size * 5000);
  switch (kind) {
    case "fail":
      // Who refuses for good has done nothing.
      return { kind, code: chosen, when: when < 0.5 || isLasting ? "before" : "after" };
    case "stall":
      return { kind, when: when < 0.5 ? "before" : "after" };
    case "break":
      return { kind, code: passingCodes[Math.floor(when * passingCodes.length)] as ErrorCode, after: at };
    case "hang":
    case "truncate":
    case "torn":
      return { kind, after: at };
    case "flip":
      return { kind, bit: at };
    case "late":
    case "stale":
      return { kind, operations: 1 + Math.floor(size * 20) };
    case "misdirect":
    case "twice":
      return { kind };
  }
}

interface Change {
  readonly at: number;
  readonly key: PhysicalKey;
  /** The blob that came; `undefined`: it went. */
  readonly sizeBytes: number | undefined;
  readonly sizeBefore: number | undefined;
}

/**
 * A driver in which things go wrong, by plan or by seed. What it did is in `injected`.
 *
 * Faults that a driver must not have are marked in its own contract (a truncated stream, a torn put): they are those of a backend that lies, and the
 * store above has to notice.
 */
export class FaultyDriver implements ObjectDriver {
  readonly name: string;
  readonly injected: InjectedFault[] = [];
  readonly #inner: ObjectDriver;
  readonly #choose: FaultChoice;
  readonly #calls = new Map<FaultyOperation, number>();
  readonly #late: { readonly at: number; readonly deliver: () => Promise<unknown> }[] = [];
  readonly #changes: Change[] = [];
  readonly #sizes = new Map<PhysicalKey, number>();
  #operations = 0;
  /** While false, nothing goes wrong. */
  isArmed = true;
  /** Where the other has them. Each blob has its own turn; those with a fault meet it alone, and are left out of the answer where it is a failure. */
  readonly getMany?: NonNullable<ObjectDriver["getMany"]>;
  readonly purgeMany?: NonNullable<ObjectDriver["purgeMany"]>;

  constructor(inner: ObjectDriver, choose: FaultChoice) {
    this.name = inner.name;
    this.#inner = inner;
    this.#choose = choose;
    if (inner.getMany !== undefined) this.getMany = (keys, call) => this.#getMany(keys, call);
    if (inner.purgeMany !== undefined) this.purgeMany = (blobs, call) => this.#purgeMany(blobs, call);
  }

  capabilities(call: Call): Promise<DriverCapabilities> {
    return this.#inner.capabilities(call);
  }

  async put(key: PhysicalKey, body: BodySource, call: Call): Promise<StoredBlob> {
    const fault = await this.#begin("put", key);
    const put = async (source: BodySource, under = call) => {
      const blob = await this.#inner.put(key, source, under);
      this.#changed(key, blob.sizeBytes);
      return blob;
    };
    switch (fault?.kind) {
      case "flip":
      case "torn": {
        const bytes = await bytesOf(body, call);
        const stored =
          fault.kind === "flip"
            ? flipped(bytes, fault.bit)
            : bytes.subarray(0, Math.min(fault.after ?? bytes.length >> 1, bytes.length));
        const blob = await put(bodyOf(stored));
        return { ...blob, sizeBytes: bytes.length };
      }
      case "twice": {
        const bytes = await bytesOf(body, call);
        await put(bodyOf(bytes));
        return await put(bodyOf(bytes));
      }
      case "late": {
        const bytes = await bytesOf(body, call);
        return await this.#later(fault.operations, "put", key, () => put(bodyOf(bytes), createCall()));
      }
      default:
        return await this.#around(fault, "put", key, call, () => put(body));
    }
  }

  async get(key: PhysicalKey, range: ByteRange | undefined, call: Call): Promise<Readable> {
    const fault = await this.#begin("get", key);
    if (fault?.kind === "misdirect") {
      const other = [...this.#sizes.keys()].find((candidate) => candidate !== key);
      return await this.#inner.get(other ?? key, range, call);
    }
    const stream = await this.#around(fault, "get", key, call, () => this.#inner.get(key, range, call));
    switch (fault?.kind) {
      case "break":
      case "hang":
      case "truncate":
      case "flip":
        return Readable.from(this.#distorted(stream, fault, key, call), { objectMode: false, highWaterMark: 1 });
      default:
        return stream;
    }
  }

  delete(key: PhysicalKey, call: Call): Promise<void> {
    return this.#remove("delete", key, call, (under) => this.#inner.delete(key, under));
  }

  purge(key: PhysicalKey, sizeBytes: number | undefined, call: Call): Promise<void> {
    return this.#remove("purge", key, call, (under) => this.#inner.purge(key, sizeBytes, under));
  }

  async *list(after: PhysicalKey | undefined, call: Call): AsyncGenerator<StoredBlob> {
    const fault = await this.#begin("list", undefined);
    if (fault?.kind === "fail" || fault?.kind === "stall") {
      await this.#around(fault, "list", undefined, call, async () => {});
    }
    let listed = 0;
    for await (const blob of fault?.kind === "stale"
      ? this.#stale(after, fault.operations, call)
      : this.#inner.list(after, call)) {
      if (fault?.kind === "break" && listed++ === (fault.after ?? 1))
        throw failure(fault.code, this.name, "list", undefined);
      yield blob;
    }
  }

  listForeign(call: Call): AsyncIterable<readonly ForeignBlob[]> {
    return this.#inner.listForeign(call);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  /** What is still on its way arrives now. */
  async deliverLate(): Promise<void> {
    for (const { deliver } of this.#late.splice(0)) await deliver();
  }

  async #getMany(keys: readonly PhysicalKey[], call: Call): Promise<ReadonlyMap<PhysicalKey, Buffer>> {
    const asked = new Map<PhysicalKey, Fault | undefined>();
    for (const key of keys) asked.set(key, await this.#begin("get", key));
    const answer = new Map<PhysicalKey, Buffer>();
    const found = (await this.#inner.getMany?.(keys, call)) ?? answer;
    for (const [key, bytes] of found) {
      const fault = asked.get(key);
      if (fault?.kind === "stall" || fault?.kind === "hang") await untilAborted(call);
      if (fault === undefined) answer.set(key, bytes);
      if (fault?.kind === "flip") answer.set(key, flipped(bytes, fault.bit));
      if (fault?.kind === "truncate") answer.set(key, bytes.subarray(0, fault.after ?? bytes.length >> 1));
      if (fault?.kind === "misdirect") answer.set(key, [...found.values()].find((other) => other !== bytes) ?? bytes);
    }
    return answer;
  }

  async #purgeMany(blobs: readonly DoomedBlob[], call: Call): Promise<ReadonlySet<PhysicalKey>> {
    const together: DoomedBlob[] = [];
    const gone = new Set<PhysicalKey>();
    for (const blob of blobs) {
      const { key, sizeBytes } = blob;
      const fault = await this.#begin("purge", key);
      if (fault === undefined) together.push(blob);
      else {
        const purge = (under: Call) => this.#inner.purge(key, sizeBytes, under);
        await this.#removeAmid(fault, "purge", key, call, purge).then(
          () => gone.add(key),
          () => {}, // it is left out
        );
      }
    }
    for (const key of (await this.#inner.purgeMany?.(together, call)) ?? []) {
      this.#changed(key, undefined);
      gone.add(key);
    }
    return gone;
  }

  async #begin(operation: FaultyOperation, key: PhysicalKey | undefined): Promise<Fault | undefined> {
    const nth = (this.#calls.get(operation) ?? 0) + 1;
    this.#calls.set(operation, nth);
    this.#operations++;
    const fault = this.#choose(operation, nth);
    const due = this.#late.filter(({ at }) => at <= this.#operations);
    for (const late of due) {
      this.#late.splice(this.#late.indexOf(late), 1);
      await late.deliver();
    }
    if (fault === undefined || !this.isArmed) return undefined;
    if (!kindsOf[operation].includes(fault.kind)) throw new Error(`${operation} can't have the fault ${fault.kind}`);
    this.injected.push({ operation, nth, fault, ...(key === undefined ? {} : { key }) });
    return fault;
  }

  async #around<T>(
    fault: Fault | undefined,
    operation: FaultyOperation,
    key: PhysicalKey | undefined,
    call: Call,
    work: () => Promise<T>,
  ): Promise<T> {
    if (fault?.kind !== "fail" && fault?.kind !== "stall") return await work();
    if (fault.when === "after") {
      const done = await work();
      if (done instanceof Readable) done.destroy();
    }
    if (fault.kind === "stall") return await untilAborted(call);
    throw failure(fault.code, this.name, operation, key);
  }

  async #remove(
    operation: "delete" | "purge",
    key: PhysicalKey,
    call: Call,
    work: (under: Call) => Promise<void>,
  ): Promise<void> {
    await this.#removeAmid(await this.#begin(operation, key), operation, key, call, work);
  }

  async #removeAmid(
    fault: Fault | undefined,
    operation: "delete" | "purge",
    key: PhysicalKey,
    call: Call,
    work: (under: Call) => Promise<void>,
  ): Promise<void> {
    const remove = async (under = call) => {
      await work(under);
      this.#changed(key, undefined);
    };
    if (fault?.kind === "late") return await this.#later(fault.operations, operation, key, () => remove(createCall()));
    if (fault?.kind === "twice") await remove();
    await this.#around(fault, operation, key, call, () => remove());
  }

  async #later(
    operations: number,
    operation: FaultyOperation,
    key: PhysicalKey,
    work: () => Promise<unknown>,
  ): Promise<never> {
    // Its answer reaches nobody any more.
    this.#late.push({ at: this.#operations + operations, deliver: () => work().catch(() => {}) });
    throw failure("BACKEND_UNREACHABLE", this.name, operation, key);
  }

  async *#distorted(
    stream: Readable,
    fault: Extract<Fault, { kind: "break" | "hang" | "truncate" | "flip" }>,
    key: PhysicalKey,
    call: Call,
  ): AsyncGenerator<Buffer> {
    const whole: Buffer[] = [];
    for await (const piece of stream as AsyncIterable<Buffer>) whole.push(piece);
    const bytes = Buffer.concat(whole);
    if (fault.kind === "flip") {
      yield flipped(bytes, fault.bit);
      return;
    }
    const end = Math.min(fault.after ?? bytes.length >> 1, bytes.length);
    if (end > 0) yield bytes.subarray(0, end);
    if (fault.kind === "hang") await untilAborted(call);
    if (fault.kind === "break") throw failure(fault.code, this.name, "get", key);
  }

  /** The listing without what came lately, and with what went. */
  async *#stale(after: PhysicalKey | undefined, operations: number, call: Call): AsyncGenerator<StoredBlob> {
    const listed = new Map<PhysicalKey, number>();
    for await (const { key, sizeBytes } of this.#inner.list(after, call)) listed.set(key, sizeBytes);
    const since = this.#operations - operations;
    for (const { at, key, sizeBefore } of this.#changes.toReversed()) {
      if (at <= since) break;
      if (sizeBefore === undefined) listed.delete(key);
      else if (key > (after ?? "")) listed.set(key, sizeBefore);
    }
    for (const key of [...listed.keys()].sort()) yield { key, sizeBytes: listed.get(key) as number };
  }

  #changed(key: PhysicalKey, sizeBytes: number | undefined): void {
    this.#changes.push({ at: this.#operations, key, sizeBytes, sizeBefore: this.#sizes.get(key) });
    if (this.#changes.length > 1000) this.#changes.splice(0, 500);
    if (sizeBytes === undefined) this.#sizes.delete(key);
    else this.#sizes.set(key, sizeBytes);
  }
}

function failure(code: ErrorCode, driver: string, operation: string, key: PhysicalKey | undefined): StowageError {
  if (!(code in codes)) throw new Error(`no such code: ${code}`);
  const details = { driver, operation, reason: "injected", ...(key === undefined ? {} : { key }) };
  return new StowageError(code as "BACKEND_FAILED", details);
}

async function untilAborted(call: Call): Promise<never> {
  await new Promise((resolve) => {
    if (call.signal.aborted) resolve(undefined);
    else call.signal.addEventListener("abort", resolve, { once: true });
  });
  throwIfAborted(call);
  throw new Error("unreachable");
}

function flipped(bytes: Buffer, bit: number | undefined): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length === 0) return copy;
  const at = (bit ?? copy.length * 4) % (copy.length * 8);
  copy[at >> 3] = (copy[at >> 3] as number) ^ (1 << (at & 7));
  return copy;
}

async function bytesOf(body: BodySource, call: Call): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of (await body.open(call)) as AsyncIterable<Buffer>) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

function bodyOf(bytes: Buffer): BodySource {
  return { open: async () => Readable.from([bytes]), sizeBytes: bytes.length };
}
