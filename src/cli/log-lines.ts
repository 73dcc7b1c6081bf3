import type { Colors } from "picocolors/types.js";
import { printable } from "./printable.ts";

const levels: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "warning",
  50: "error",
  60: "error",
};

/** A line of the log as a person reads it: `warning: upkeep failed (backend: s3 …): the reason`. What is no log line passes as it is. */
export function formatLogLine(line: string, { red, yellow, dim }: Colors): string {
  let entry: Readonly<Record<string, unknown>>;
  try {
    entry = JSON.parse(line) as typeof entry;
  } catch {
    return line;
  }
  const { level, time: _, msg, err, ...fields } = entry;
  const name = levels[Number(level)] ?? "info";
  const paint = Number(level) >= 50 ? red : Number(level) >= 40 ? yellow : dim;
  const details = Object.entries(fields).map(([key, value]) => `${key}: ${textOf(value)}`);
  const cause = typeof err === "object" && err !== null && "message" in err ? `: ${textOf(err.message)}` : "";
  const text = `${textOf(msg)}${details.length === 0 ? "" : ` (${details.join("; ")})`}${cause}`;
  return `${paint(`${name}:`)} ${printable(text)}\n`;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}
