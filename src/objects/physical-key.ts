import { randomBytes } from "node:crypto";
import { StowageError } from "../errors/index.ts";
import type { PhysicalKey } from "./driver.ts";

/** A new name for stored bytes: 128 random bits, so that no two are ever the same and nothing is ever overwritten. */
export function createPhysicalKey(): PhysicalKey {
  return randomBytes(16).toString("hex") as PhysicalKey;
}

/** @throws StowageError `INPUT_INVALID` */
export function parsePhysicalKey(text: string): PhysicalKey {
  if (!/^[0-9a-f]{32}$/.test(text)) throw new StowageError("INPUT_INVALID", { what: "physical key", value: text });
  return text as PhysicalKey;
}
