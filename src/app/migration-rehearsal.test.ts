import { describe, expect, it } from "vitest";
import type { BackendSection, CheckStep } from "../objects/index.ts";
import { Rehearsal } from "./migration-rehearsal.ts";

const step = (name: string, durationMs: number): CheckStep => ({
  name,
  outcome: "ok",
  durationMs,
  detail: undefined,
  error: undefined,
});

const steps = [
  step("write", 30),
  step("write a large one", 1000),
  step("read back", 10),
  step("read back the large one", 500),
];

function section(name: string, freeBytes?: () => Promise<number>): BackendSection {
  const opener = {
    name,
    settingsOf: () => ({}),
    open: async (): Promise<never> => {
      throw new TypeError("nothing is opened here");
    },
    ...(freeBytes === undefined ? {} : { freeBytes }),
  };
  return { opener, config: {} };
}

async function rehearse(
  free: (() => Promise<number>) | undefined,
  done: (place: string) => readonly CheckStep[],
  bounds: Parameters<Rehearsal["estimate"]>[0] = { concurrency: "auto" },
): Promise<Awaited<ReturnType<Rehearsal["estimate"]>>> {
  const sections = new Map([
    ["from", section("from")],
    ["to", section("to", free)],
  ]);
  const groups = [
    { from: "from", to: "to", objects: 3200, bytes: 20_000_000 },
    { from: "from", to: "to", objects: 0, bytes: 40_000_000 },
  ];
  const rehearsal = new Rehearsal(sections, groups, async function* ({ opener }) {
    yield* done(opener.name);
  });
  const seen: string[] = [];
  for await (const { place } of rehearsal.steps()) seen.push(place);
  expect(new Set(seen)).toEqual(new Set(["from", "to"]));
  return await rehearsal.estimate(bounds);
}

describe("an estimate", () => {
  it("counts objects by what a small document took, bytes by what a large one took", async () => {
    // 3,200 × (10 + 30 + 10) ms, 16 at once; 60 MB × (500 + 1000 + 500) ms / 20 MB
    const { seconds, space } = await rehearse(
      async () => 7,
      () => steps,
    );
    expect(seconds).toBe(10 + 6);
    expect(space).toEqual([{ place: "to", neededBytes: 60_000_000, freeBytes: 7 }]);
  });

  it("is no shorter than the rate and the concurrency that are asked for allow", async () => {
    const seconds = async (bounds: Parameters<Rehearsal["estimate"]>[0]) =>
      (await rehearse(undefined, () => steps, bounds)).seconds;
    expect(await seconds({ concurrency: "auto", bytesPerSecondMax: 600_000 })).toBe(100);
    expect(await seconds({ concurrency: "auto", bytesPerSecondMax: 6_000_000 })).toBe(16);
    expect(await seconds({ concurrency: 4 })).toBe(40 + 6);
  });

  it("says nothing where a store can't be used, or can't tell its space", async () => {
    const failed = (place: string) =>
      steps.map((each) => (place === "to" && each.name === "write" ? { ...each, outcome: "failed" as const } : each));
    const cannotTell = () => Promise.reject(new Error("no"));
    expect(await rehearse(cannotTell, failed)).toEqual({
      seconds: undefined,
      space: [{ place: "to", neededBytes: 60_000_000, freeBytes: undefined }],
    });
    expect((await rehearse(undefined, () => steps)).space[0]?.freeBytes).toBeUndefined();
  });
});
