import { StowageError } from "../errors/index.ts";

const factors: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/**
 * A size that somebody typed, in bytes, rounded down. A lone `k`, `m` or `g` is refused: it means 1,000 to some and 1,024 to others.
 * @param what the option, for the message
 * @throws StowageError `INPUT_INVALID`
 */
export function parseSize(text: string, what: string): number {
  const [, digits, unit = ""] = /^(\d{1,15}(?:[.]\d{1,9})?) ?([kmgt]i?b|b)?$/i.exec(text) ?? [];
  const size = Math.floor(Number(digits) * (factors[unit.toLowerCase()] ?? Number.NaN));
  if (Number.isSafeInteger(size)) return size;
  const reason = "not a size: write a number of bytes, or one with a unit, as 500MB, 2.5GB or 1GiB";
  throw new StowageError("INPUT_INVALID", { what, value: text, reason });
}
