import { createRandom } from "../fault/random.ts";
import { KillGround } from "./kill-ground.ts";
import { deedsOf } from "./kill-script.ts";

const tellEvery = 100;

export interface KillsOptions {
  readonly seed: number;
  readonly kills: number;
  readonly lanes: number;
  readonly tell: (line: string) => void;
}

export interface KillsResult {
  readonly killed: number;
  /** Victims that were at their end before the blow fell. */
  readonly finished: number;
  /** How often each step was the last. */
  readonly lastSteps: ReadonlyMap<string, number>;
  readonly violations: readonly string[];
}

/** No victim goes through so many steps. */
const stepsMax = 110;
/** About as long as a victim works. */
const workMs = 150;
/** Between two looks at what is left after all has been cleaned up. */
const cleanEvery = 8;

/** Kills victims at steps and at times, one after the other on what the last one has left, and looks at it each time. */
export async function runKills({ seed, kills, lanes, tell }: KillsOptions): Promise<KillsResult> {
  const lastSteps = new Map<string, number>();
  const violations: string[] = [];
  let killed = 0;
  let finished = 0;
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      await using ground = await KillGround.open();
      const random = createRandom(seed + lane);
      for (let run = lane; killed < kills && violations.length === 0; run += lanes) {
        const deeds = deedsOf(random, 1 + run * 100);
        // Two thirds at a step.
        const isAtStep = random.next() < 0.67;
        const drawn = random.next();
        const killAt = isAtStep ? { nth: 1 + Math.floor(drawn * stepsMax) } : undefined;
        const ended = await ground.run({
          deeds,
          ...(killAt === undefined ? { killAfterMs: Math.floor(drawn * workMs) } : { killAt }),
        });
        if (ended.signal === "SIGKILL") killed++;
        else finished++;
        if (ended.signal === "SIGKILL" && killed % tellEvery === 0) tell(`${killed} killed`);
        const last = ended.lines.findLast((line) => "step" in line);
        const name = last === undefined ? "none" : "step" in last ? last.step : "";
        lastSteps.set(name, (lastSteps.get(name) ?? 0) + 1);
        const found = [...(await ground.violations(false))];
        if (ended.signal === null && ended.code !== 0) found.push(`the victim failed: ${ended.errors}`);
        if (found.length === 0 && random.next() < 1 / cleanEvery) found.push(...(await ground.cleanUp()));
        violations.push(...found.map((each) => `run ${run}, lane ${lane}, after ${name}: ${each}`));
      }
      if (violations.length === 0) violations.push(...(await ground.cleanUp()));
    }),
  );
  return { killed, finished, lastSteps, violations };
}
