import { StowageError } from "../errors/index.ts";

/**
 * What `--max-rate` says, in bytes per second.
 * @throws StowageError `INPUT_INVALID`
 */
export function parseRate(text: string): number {
  const [, digits, unit = ""] = /^(\d{1,12})([kmg]?)$/i.exec(text) ?? [];
  const rate = Number(digits) * 1024 ** ["", "k", "m", "g"].indexOf(unit.toLowerCase());
  if (rate > 0) return rate;
  const reason = "not a positive whole number of bytes per second, with k, m or g for multiples of 1,024";
  throw new StowageError("INPUT_INVALID", { what: "--max-rate", value: text, reason });
}
