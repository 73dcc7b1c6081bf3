import { isCode, messageOf, StowageError } from "./error.ts";

const full = ["ENOSPC", "EDQUOT"];

/** What is said when a temporary file could not be made or written. */
export function temporaryFailure(error: unknown, directory?: string): StowageError {
  const isFull = full.includes((error as NodeJS.ErrnoException).code ?? "");
  return new StowageError(
    "CONFIG_TEMPORARY_UNUSABLE",
    { ...(directory === undefined ? {} : { directory }), reason: messageOf(error) },
    {
      cause: error,
      hint: isFull
        ? "free space there, or name a larger place: tmp_dir in the configuration file, or TMPDIR"
        : "make the directory, writable for this user, or name another one: tmp_dir in the configuration file, or TMPDIR",
    },
  );
}

/** Whether it failed since there was no room, also when it comes from another thread. */
export function isTemporaryFull(error: unknown): boolean {
  return (
    isCode(error, "CONFIG_TEMPORARY_UNUSABLE") && full.some((code) => String(error.details.reason).startsWith(code))
  );
}
