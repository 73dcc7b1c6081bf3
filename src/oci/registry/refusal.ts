import { maskSecrets } from "../../config/index.ts";
import { StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { accessDenied } from "./authorizer.ts";
import { type HttpAnswer, readBody } from "./transport.ts";

const ERROR_BYTES_MAX = 64 * 1024;

/** The error for a status that is no success. */
export async function refusal(answer: HttpAnswer, repository: string, call: Call): Promise<StowageError> {
  const { status, url } = answer;
  const bound = { limit: "errorBytesMax", max: ERROR_BYTES_MAX, timeoutMs: 10_000, what: "an error's body" };
  let reason: string | undefined;
  try {
    reason = describeError(await readBody(answer, bound, call));
  } catch (error) {
    if (call.signal.aborted) throw error;
    // A body that can't be read explains nothing; the status is what counts.
    reason = undefined;
  }
  if (status === 401 || status === 403) return accessDenied(url.host, status, repository, reason);
  return new StowageError("REGISTRY_REFUSED", { host: url.host, status, ...(reason ? { reason } : {}) });
}

/** What the registry says, short and printable. @see OCI distribution-spec, "Error Codes" */
function describeError(body: Buffer): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    // HTML of some proxy.
    return undefined;
  }
  const first = (value as { errors?: { code?: unknown; message?: unknown }[] } | null)?.errors?.[0];
  const parts = [first?.code, first?.message].filter((part) => typeof part === "string");
  const text = parts.join(": ").replace(/[^\x20-\x7e]+/g, " ");
  return text === "" ? undefined : maskSecrets(text).slice(0, 300);
}
