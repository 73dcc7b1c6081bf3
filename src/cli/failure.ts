import { maskSecrets } from "../config/index.ts";
import type { StowageError } from "../errors/index.ts";
import { printable, printableJson } from "./printable.ts";

/**
 * An error as a person reads it on standard error: message, hint, code. Secrets masked, safe for a terminal.
 * `isVerbose` adds where an internal failure came from, which is what a report of it needs.
 */
export function describeFailure(error: StowageError, paint: (text: string) => string, isVerbose: boolean): string {
  const { code, message } = error.serialize();
  const isInternal = code === "INTERNAL_FAILURE";
  const hint =
    error.hint ?? (isInternal && !isVerbose ? "run it again with --log-level debug to see where" : undefined);
  const lines = [`${paint("error:")} ${oneLine(message)}`];
  if (hint !== undefined) lines.push(`  hint: ${oneLine(hint)}`);
  const { also } = error.details;
  if (Array.isArray(also)) lines.push(...also.map((other: string) => `  also: ${oneLine(other)}`));
  lines.push(`  code: ${code}`);
  if (isInternal && isVerbose && error.cause instanceof Error) {
    lines.push(...(error.cause.stack ?? "").split("\n").map((line) => `  ${printable(line)}`));
  }
  return maskSecrets(`${lines.join("\n")}\n`);
}

/** The same as one line of JSON, for `-o json`. */
export function failureDocument(error: StowageError): string {
  return maskSecrets(`${printableJson(JSON.stringify({ error: error.serialize() }))}\n`);
}

/** Our own backslashes are none that an image chose, but they are rare enough to be doubled as well. */
function oneLine(text: string): string {
  return printable(text.replaceAll(/\s*\n\s*/g, " "));
}
