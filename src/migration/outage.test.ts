import { describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { StowageError } from "../errors/index.ts";
import { createCall, systemClock } from "../runtime/index.ts";
import { Outage } from "./outage.ts";

const gone = () => new StowageError("BACKEND_UNREACHABLE", { driver: "s3" });

function outage(sleep: () => void = () => {}) {
  const abort = new AbortController();
  const told: boolean[] = [];
  const clock = {
    ...systemClock,
    sleep: async () => {
      sleep();
    },
  };
  const made = new Outage(clock, createCall({ signal: abort.signal }), (isPaused) => told.push(isPaused));
  return { made, told, abort };
}

const done = async () => true;
const failing = async () => {
  throw gone();
};

describe("an outage of a place", () => {
  test("pauses after ten failures in a row, and what was paused is tried again until it goes through", async () => {
    let isWell = false;
    let sleeps = 0;
    const { made, told } = outage(() => {
      isWell = ++sleeps === 3;
    });
    const tried: number[] = [];
    const attempts = Array.from({ length: 100 }, (_, index) =>
      made
        .attempt(async () => {
          tried.push(index);
          if (!isWell) throw gone();
          return true;
        })
        .catch((error: StowageError) => error.code),
    );
    const results = await Promise.all(attempts);
    // The first nine could not know better; all others went through.
    expect(results).toEqual([...Array(9).fill("BACKEND_UNREACHABLE"), ...Array(91).fill(true)]);
    expect({ told, sleeps, reason: made.reason }).toEqual({ told: [true, false], sleeps: 3, reason: undefined });
  });

  test("is not what one success, or an object's own failure, says", async () => {
    const { made, told } = outage();
    for (let round = 0; round < 5; round++) {
      for (let failures = 0; failures < 9; failures++) {
        expect((await failureOf(made.attempt(failing))).code).toBe("BACKEND_UNREACHABLE");
      }
      await made.attempt(done);
    }
    for (let failures = 0; failures < 50; failures++) {
      const damaged = new StowageError("BACKEND_FAILED", { driver: "s3", operation: "get", reason: "no" });
      await failureOf(made.attempt(() => Promise.reject(damaged)));
    }
    expect(told).toEqual([]);
  });

  test("that stays ends all, after a bounded number of single tries", async () => {
    let sleeps = 0;
    const { made, told } = outage(() => {
      sleeps++;
    });
    let tries = 0;
    const attempts = Array.from({ length: 200 }, () =>
      made
        .attempt(async () => {
          tries++;
          throw gone();
        })
        .catch(() => "failed"),
    );
    const results = await Promise.all(attempts);
    expect(results.filter((each) => each === "failed")).toHaveLength(9);
    expect(results.filter((each) => each === false)).toHaveLength(191);
    expect(sleeps).toBe(60);
    // Those that were under way when it began, and one after the other since.
    expect(tries).toBe(200 + 60);
    expect(made.reason?.code).toBe("BACKEND_UNREACHABLE");
    expect(told).toEqual([true]);
    expect(await made.attempt(done)).toBe(false);
  });

  test("waits no longer than its call", async () => {
    const { made, abort } = outage(() => abort.abort());
    const attempts = Array.from({ length: 20 }, () => made.attempt(failing).catch(() => "failed"));
    expect((await Promise.all(attempts)).slice(9)).toEqual(Array(11).fill(false));
    expect(made.reason).toBeUndefined();
  });
});
