import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Gathering } from "./gathering.ts";

describe("questions that are asked together", () => {
  const held = () => {
    const asked: (readonly number[])[] = [];
    const answers: (() => void)[] = [];
    const gathering = new Gathering<number, string>(3, async (items) => {
      asked.push(items);
      await new Promise<void>((resolve) => answers.push(resolve));
      if (items.includes(13)) throw new Error(`not ${items}`);
      return items.map((item) => `${item}!`);
    });
    const answer = async () => {
      answers.shift()?.();
      await nextTurn();
    };
    return { gathering, asked, answer };
  };

  test("the first goes at once, those that come meanwhile go together, each with its own answer", async () => {
    const { gathering, asked, answer } = held();
    const all = Promise.all([1, 2, 3, 4, 5].map((item) => gathering.ask(item)));
    expect(asked).toEqual([[1]]);
    await answer();
    expect(asked).toEqual([[1], [2, 3, 4]]);
    await answer();
    expect(asked).toEqual([[1], [2, 3, 4], [5]]);
    await answer();
    expect(await all).toEqual(["1!", "2!", "3!", "4!", "5!"]);
  });

  test("one that fails does not take others with it", async () => {
    const { gathering, asked, answer } = held();
    const all = Promise.allSettled([1, 2, 13, 3].map((item) => gathering.ask(item)));
    for (let answered = 0; answered < 5; answered++) await answer();
    expect((await all).map((result) => (result.status === "fulfilled" ? result.value : String(result.reason)))).toEqual(
      ["1!", "2!", "Error: not 13", "3!"],
    );
    expect(asked).toEqual([[1], [2, 13, 3], [2], [13], [3]]);
  });

  test("after a failure it goes on", async () => {
    const { gathering, answer } = held();
    const failed = gathering.ask(13);
    failed.catch(() => {});
    await answer();
    await expect(failed).rejects.toThrow("not 13");
    const next = gathering.ask(1);
    await answer();
    expect(await next).toBe("1!");
  });
});
