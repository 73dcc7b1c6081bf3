/** Objects that one statement of the store's own is about. */
export const gatheredMax = 100;

interface Asked<Item, Answer> {
  readonly item: Item;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/**
 * One question for all who ask while the one before is under way: a journey to a server costs more than what it carries. Whoever asks when nothing is
 * under way waits for nobody.
 */
export class Gathering<Item, Answer> {
  readonly #ask: (items: readonly Item[]) => Promise<readonly Answer[]>;
  readonly #itemsMax: number;
  #waiting: Asked<Item, Answer>[] = [];
  #isUnderWay = false;

  /** `ask` gives an answer for each item, in their order. */
  constructor(itemsMax: number, ask: (items: readonly Item[]) => Promise<readonly Answer[]>) {
    this.#itemsMax = itemsMax;
    this.#ask = ask;
  }

  ask(item: Item): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting.push({ item, resolve, reject });
    if (!this.#isUnderWay) void this.#askAll();
    return promise;
  }

  async #askAll(): Promise<void> {
    this.#isUnderWay = true;
    while (this.#waiting.length > 0) await this.#askTogether(this.#waiting.splice(0, this.#itemsMax));
    this.#isUnderWay = false;
  }

  async #askTogether(asked: readonly Asked<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#ask(asked.map(({ item }) => item));
      for (const [index, { resolve }] of asked.entries()) resolve(answers[index] as Answer);
    } catch (error) {
      const [first] = asked;
      // The fault may be one item's: nobody else is to fail with it.
      if (asked.length > 1) for (const each of asked) await this.#askTogether([each]);
      else first?.reject(error);
    }
  }
}
