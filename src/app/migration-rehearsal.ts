import { type BackendSection, type CheckStep, checkSizes } from "../objects/index.ts";

/** What a migration would need, from what its stores did with test documents. */
export interface MigrationEstimate {
  /** Missing where a store can't be used. */
  readonly seconds: number | undefined;
  readonly space: readonly {
    readonly place: string;
    readonly neededBytes: number;
    /** Missing where the store can't tell. */
    readonly freeBytes: number | undefined;
  }[];
}

interface Group {
  readonly from: string;
  readonly to: string;
  readonly objects: number;
  readonly bytes: number;
}

/** Small documents that are on their way at once where nobody says how many, at the least. */
const atOnceAuto = 16;

/** How fast it may be. */
interface Bounds {
  readonly concurrency: number | "auto";
  readonly bytesPerSecondMax?: number;
}

/** Tries all stores of a migration and measures them. */
export class Rehearsal {
  readonly #sections: ReadonlyMap<string, BackendSection>;
  readonly #groups: readonly Group[];
  readonly #check: (section: BackendSection) => AsyncIterable<CheckStep>;
  readonly #tookMs = new Map<string, number>();

  constructor(
    sections: ReadonlyMap<string, BackendSection>,
    groups: readonly Group[],
    check: (section: BackendSection) => AsyncIterable<CheckStep>,
  ) {
    this.#sections = sections;
    this.#groups = groups;
    this.#check = check;
  }

  /** The steps of all stores as they end. */
  async *steps(): AsyncGenerator<{ readonly place: string; readonly step: CheckStep }> {
    for (const [place, section] of this.#sections) {
      for await (const step of this.#check(section)) {
        if (step.outcome === "ok") this.#tookMs.set(`${place}: ${step.name}`, step.durationMs);
        yield { place, step };
      }
    }
  }

  /** From the steps that were done until now. */
  async estimate({ concurrency, bytesPerSecondMax }: Bounds): Promise<MigrationEstimate> {
    const atOnce = concurrency === "auto" ? atOnceAuto : Math.min(concurrency, atOnceAuto);
    const took = (place: string, step: string) => this.#tookMs.get(`${place}: ${step}`) ?? Number.NaN;
    const ms = this.#groups.reduce((sum, { from, to, objects, bytes }) => {
      const perObject = took(from, "read back") + took(to, "write") + took(to, "read back");
      const large = "read back the large one";
      const perByte = (took(from, large) + took(to, "write a large one") + took(to, large)) / checkSizes.large;
      return sum + (objects * perObject) / atOnce + bytes * perByte;
    }, 0);
    const atMaxMs = (this.#groups.reduce((sum, { bytes }) => sum + bytes, 0) * 1000) / (bytesPerSecondMax ?? Infinity);
    const needed = new Map<string, number>();
    for (const { to, bytes } of this.#groups) needed.set(to, (needed.get(to) ?? 0) + bytes);
    return {
      seconds: Number.isNaN(ms) ? undefined : Math.ceil(Math.max(ms, atMaxMs) / 1000),
      space: await Promise.all(
        [...needed].map(async ([place, neededBytes]) => ({ place, neededBytes, freeBytes: await this.#free(place) })),
      ),
    };
  }

  async #free(place: string): Promise<number | undefined> {
    const section = this.#sections.get(place);
    return await section?.opener.freeBytes?.(section.config).catch(() => undefined);
  }
}
