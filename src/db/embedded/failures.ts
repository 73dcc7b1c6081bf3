import { messageOf, StowageError } from "../../errors/index.ts";

const LINES_MAX = 2;
const LINE_LENGTH_MAX = 200;

/** Hint by the words of the operating system, which PostgreSQL repeats. */
function hintFor(words: string, directory: string): string {
  return /No space left on device|ENOSPC|Disk quota exceeded|EDQUOT/.test(words)
    ? `free space where ${directory} lies, or choose another place with --data-dir`
    : "run as the user to whom the data directory belongs, or choose another with --data-dir";
}

/** What the file system refused, as a failure of the embedded database; other errors as they are. */
export function toEmbeddedFailure(error: unknown, directory: string): unknown {
  if (error instanceof StowageError || (error as NodeJS.ErrnoException | undefined)?.syscall === undefined) {
    return error;
  }
  const reason = `the data directory can't be used: ${messageOf(error)}`;
  return new StowageError(
    "DB_EMBEDDED_FAILED",
    { reason },
    { cause: error, hint: hintFor(messageOf(error), directory) },
  );
}

/** One of PostgreSQL's programs has failed, and `output` is what it said. */
export function programFailure(reason: string, output: string, directory: string): StowageError {
  const log = gist(output);
  const hint = /No space left|quota exceeded/i.test(log) ? { hint: hintFor(log, directory) } : {};
  return new StowageError("DB_EMBEDDED_FAILED", { reason, log }, hint);
}

/** The lines that say what is wrong: the others are progress, or the statement that could not be carried out. */
function gist(output: string): string {
  const lines = output.split("\n").map((line) => line.trim());
  const wrong = lines.flatMap((line) => /\b(FATAL|PANIC|ERROR|error): .*/.exec(line)?.[0] ?? []);
  const chosen = wrong.length > 0 ? wrong.slice(0, LINES_MAX) : lines.filter(Boolean).slice(-LINES_MAX);
  return chosen.map((line) => line.slice(0, LINE_LENGTH_MAX)).join("; ");
}
