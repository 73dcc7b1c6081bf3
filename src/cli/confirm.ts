import { createInterface } from "node:readline/promises";
import { throwIfAborted } from "../runtime/index.ts";
import type { Context } from "./context.ts";

/** Asks the person at the terminal; true only for yes. */
export async function confirm({ host, call }: Context, question: string): Promise<boolean> {
  // Not as a terminal: readline would take Ctrl-C for itself, and it has to reach the process as a signal.
  const lines = createInterface({ input: host.stdin, output: host.stderr, terminal: false });
  try {
    // The end of the input is an answer, too; it leaves the cursor on the question's line.
    const closed = new Promise<string>((resolve) => lines.once("close", () => resolve("\n")));
    const answer = await Promise.race([lines.question(question, { signal: call.signal }), closed]);
    if (answer === "\n") host.stderr.write(answer);
    return /^\s*y(es)?\s*$/i.test(answer);
  } catch (error) {
    throwIfAborted(call);
    throw error;
  } finally {
    lines.close();
  }
}
