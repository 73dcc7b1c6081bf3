import { type Call, throwIfAborted } from "../../runtime/index.ts";

/** What a call that was aborted fails with; `undefined` for one that was not. */
export function abortReason(call: Call): unknown {
  try {
    throwIfAborted(call);
    return undefined;
  } catch (reason) {
    return reason;
  }
}
