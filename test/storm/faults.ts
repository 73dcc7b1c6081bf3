import type { WholeBlob } from "../../src/objects/driver.ts";
import { type FileCalls, type OpenFile, realFileCalls } from "../../src/objects/drivers/localfs/file-calls.ts";
import type { ObjectDriver } from "../../src/objects/index.ts";
import { type FaultChoice, FaultyDriver, randomFaults } from "../fault/faulty-driver.ts";
import { createRandom, type SeededRandom } from "../fault/random.ts";

/** Whether anything goes wrong just now, and how often. */
export interface Weather {
  isStormy: boolean;
  /** What went wrong, for the history of a violation. */
  readonly log: string[];
}

const stormCalls = 15;

/**
 * Faults of a backend by seed, and now and then a storm: everything is refused for a while, as a busy S3 does (`503 SlowDown`).
 *
 * A database's statements are not told twice, and what it was told takes effect before its answer is lost for good; so it has neither of these faults.
 */
function stormyFaults(driver: string, seed: number, rate: number): FaultChoice {
  const { next } = createRandom(seed ^ 0x5eed);
  const kinds = [
    "fail",
    "stall",
    "break",
    "hang",
    "truncate",
    "flip",
    "misdirect",
    "torn",
    "twice",
    "late",
    "stale",
  ] as const;
  const rare = randomFaults({ seed, rate: rate / 40, kinds: ["stall", "hang"] });
  const usual = randomFaults({
    seed: seed + 1,
    rate,
    kinds: kinds.filter((kind) => !["stall", "hang", ...(driver === "db" ? ["twice", "late"] : [])].includes(kind)),
  });
  let stormUntil = 0;
  let calls = 0;
  return (operation, nth) => {
    calls++;
    const chosen = [rare(operation, nth), usual(operation, nth)].find((fault) => fault !== undefined);
    if (next() < rate / 150) stormUntil = calls + stormCalls;
    if (calls < stormUntil) return { kind: "fail", code: "BACKEND_THROTTLED", when: "before" };
    return chosen;
  };
}

/** The driver with faults, which obey the weather. */
export class StormyDriver extends FaultyDriver {
  readonly #weather: Weather;
  readonly #random: SeededRandom;
  readonly #rate: number;
  /** Where the other has them: now and then a blob arrives damaged, and the server has to notice. */
  readonly statementPuts?: NonNullable<ObjectDriver["statementPuts"]>;

  constructor(inner: ObjectDriver, seed: number, rate: number, weather: Weather) {
    super(inner, stormyFaults(inner.name, seed, rate));
    const { statementPuts } = inner;
    if (statementPuts !== undefined) {
      const damaged = (blob: WholeBlob) => {
        if (this.#random.next() >= this.#rate || !this.#weather.isStormy) return blob;
        this.#weather.log.push(`put ${blob.key} in a statement: arrives damaged`);
        const bytes = Buffer.from(blob.bytes);
        bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
        return { ...blob, bytes };
      };
      const expressions = (blobs: readonly WholeBlob[]) => statementPuts.expressions(blobs.map(damaged));
      this.statementPuts = { ...statementPuts, expressions };
    }
    this.#weather = weather;
    this.#random = createRandom(seed ^ 0xd16e57);
    this.#rate = rate;
    this.isArmed = weather.isStormy;
  }

  /** Says now and then that it has stored something else, or another length. */
  override async put(...call: Parameters<ObjectDriver["put"]>): ReturnType<ObjectDriver["put"]> {
    const stored = await super.put(...call);
    const chance = this.#random.next();
    if (!this.#weather.isStormy || chance >= this.#rate / 10) return stored;
    this.#weather.log.push(`put ${stored.key}: says that it stored something else`);
    if (stored.digest === undefined) return { ...stored, sizeBytes: stored.sizeBytes + 1 };
    return { ...stored, digest: `sha256:${"0".repeat(64)}` };
  }

  /** As the weather is from now on. Tells what went wrong meanwhile. */
  obeyWeather(): void {
    this.isArmed = this.#weather.isStormy;
    for (const { operation, fault, key } of this.injected.splice(0)) {
      this.#weather.log.push(`${operation} ${key ?? ""}: ${JSON.stringify(fault)}`);
    }
  }
}

/** A disk that is full or failing now and then. */
export function stormyFiles(seed: number, rate: number, weather: Weather): FileCalls {
  const random = createRandom(seed ^ 0xd15c);
  const risk = async <T>(name: string, path: string, codes: readonly string[], work: () => Promise<T>): Promise<T> => {
    const [chance, choice, when] = [random.next(), random.next(), random.next()];
    if (!weather.isStormy || chance >= rate / 6) return await work();
    const code = codes[Math.floor(choice * codes.length)] as string;
    // Some have happened all the same.
    const isDone = when < 0.3;
    weather.log.push(`${name} ${path}: ${code}${isDone ? ", though it was done" : ""}`);
    if (isDone) await work();
    throw Object.assign(new Error(`${code}: injected, ${name} '${path}'`), { code, syscall: name, path });
  };
  const full = ["ENOSPC", "EIO"];
  const failing = ["EIO"];
  return {
    ...realFileCalls,
    open: async (path, flags, mode) => {
      const file = await realFileCalls.open(path, flags, mode);
      return stormyFile(file, path, { risk, full, failing });
    },
    mkdir: (path, mode) => risk("mkdir", path, full, () => realFileCalls.mkdir(path, mode)),
    link: (existing, path) => risk("link", path, full, () => realFileCalls.link(existing, path)),
    unlink: (path) => risk("unlink", path, failing, () => realFileCalls.unlink(path)),
    status: (path) => risk("stat", path, failing, () => realFileCalls.status(path)),
  };
}

interface Risks {
  readonly full: readonly string[];
  readonly failing: readonly string[];
  readonly risk: <T>(name: string, path: string, codes: readonly string[], work: () => Promise<T>) => Promise<T>;
}

function stormyFile(file: OpenFile, path: string, { risk, full, failing }: Risks): OpenFile {
  return {
    write: (bytes, position) => risk("write", path, full, () => file.write(bytes, position)),
    read: (into, position) => risk("read", path, failing, () => file.read(into, position)),
    sync: () => risk("fsync", path, failing, () => file.sync()),
    status: () => file.status(),
    chmod: (mode) => file.chmod(mode),
    chgrp: (group) => file.chgrp(group),
    close: () => file.close(),
  };
}
