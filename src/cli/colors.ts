import { createColors } from "picocolors";
import type { Colors } from "picocolors/types.js";
import type { Environment } from "../config/index.ts";
import type { OutputStream } from "./output.ts";
import type { GlobalOptions } from "./program.ts";

/** Colours, if the user's wish or else the stream allows them. */
export function colorsFor(stream: OutputStream, options: GlobalOptions, environment: Environment): Colors {
  const isWished = options.color === false ? false : environment.color;
  return createColors(isWished ?? (stream.isTTY === true && !environment.isTerminalDumb));
}
