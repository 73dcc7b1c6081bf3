/** Numbers that look drawn, and are the same for the same seed. */
export interface SeededRandom {
  /** From 0 up to 1. */
  next(): number;
  /** From 0 up to `max`. */
  integer(max: number): number;
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Buffer;
}

/** A 32-bit generator: a Weyl sequence, mixed. */
export function createRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const next32 = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const next = () => next32() / 2 ** 32;
  const integer = (max: number) => Math.floor(next() * max);
  return {
    next,
    integer,
    pick: (items) => {
      if (items.length === 0) throw new Error("nothing to pick from");
      return items[integer(items.length)] as (typeof items)[number];
    },
    bytes: (length) => {
      const bytes = Buffer.alloc(length);
      for (let at = 0; at < length; at += 4) {
        const value = next32();
        for (let byte = 0; byte < 4 && at + byte < length; byte++) bytes[at + byte] = value >>> (8 * byte);
      }
      return bytes;
    },
  };
}
