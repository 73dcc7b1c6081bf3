import { messageOf, StowageError } from "./error.ts";

/** What is said when a temporary file could not be made or written. */
export function temporaryFailure(error: unknown, directory?: string): StowageError {
  const isFull = ["ENOSPC", "EDQUOT"].includes((error as NodeJS.ErrnoException).code ?? "");
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
