import type { ZodType, z } from "zod";
import { StowageError } from "../errors/index.ts";

/** No manifest, configuration or index comes near it; `JSON.parse` itself has no limit. */
const DEPTH_MAX = 200;

/**
 * Parses a hostile JSON document whose size is bounded by the caller. Duplicate keys keep the last value, as everywhere;
 * what the schema doesn't name (`__proto__` too) is left out.
 * @throws StowageError `IMAGE_MANIFEST_INVALID`
 */
export function parseJson<S extends ZodType>(bytes: Uint8Array, schema: S, what: string): z.output<S> {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    checkDepth(text);
    value = JSON.parse(text);
  } catch (error) {
    throw new StowageError("IMAGE_MANIFEST_INVALID", { reason: `${what} is not valid JSON` }, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue && issue.path.length > 0 ? `${what}, ${issue.path.map(String).join(".").slice(0, 100)}` : what;
  throw new StowageError("IMAGE_MANIFEST_INVALID", {
    reason: `${where}: ${issue?.message ?? "invalid"}`.slice(0, 300),
  });
}

function checkDepth(text: string): void {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (inString) {
      if (char === 0x5c) at++;
      else if (char === 0x22) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x7b || char === 0x5b) {
      depth++;
      if (depth > DEPTH_MAX) throw new Error(`nested deeper than ${DEPTH_MAX}`);
    } else if (char === 0x7d || char === 0x5d) depth--;
  }
}
