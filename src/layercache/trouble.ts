import { messageOf, StowageError } from "../errors/index.ts";

/** `closed`: by a trouble that was told already. */
export type TroubleKind = "full" | "refused" | "gone" | "damaged" | "busy" | "closed" | "other";

/** The cache can't do something; the analysis goes on without. */
export class CacheTrouble extends Error {
  readonly kind: TroubleKind;

  constructor(kind: TroubleKind, reason: string, cause?: unknown) {
    super(reason, cause === undefined ? {} : { cause });
    this.kind = kind;
  }
}

const kindsOfErrno: Readonly<Record<string, TroubleKind>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EACCES: "refused",
  EPERM: "refused",
  EROFS: "refused",
  ELOOP: "refused",
  ENOENT: "gone",
  ENOTDIR: "gone",
  ESTALE: "gone",
  ENODEV: "gone",
};

/** Primary result codes of SQLite. */
const kindsOfSqlite: Readonly<Record<number, TroubleKind>> = {
  5: "busy",
  6: "busy",
  8: "refused",
  11: "damaged",
  13: "full",
  14: "refused",
  26: "damaged",
};
/** The extended code of an index whose file is no longer under its name. */
const READONLY_DBMOVED = 1032;

/** What a failed call of the file system or the index means for the cache. What is no failure of theirs, an interruption for example, is thrown as it is. */
export function troubleOf(error: unknown): CacheTrouble {
  if (error instanceof CacheTrouble) return error;
  if (error instanceof StowageError) throw error;
  const errcode = sqliteCodeOf(error);
  if (errcode !== undefined) {
    const kind = errcode === READONLY_DBMOVED ? "gone" : (kindsOfSqlite[errcode & 0xff] ?? "other");
    return new CacheTrouble(kind, `its index: ${messageOf(error)}`, error);
  }
  const errno = errnoOf(error);
  if (errno === undefined) throw error;
  return new CacheTrouble(kindsOfErrno[errno] ?? "other", messageOf(error), error);
}

/** The system's name of a failure, `ENOENT` for example. */
export function errnoOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/** SQLite's extended result code. */
export function sqliteCodeOf(error: unknown): number | undefined {
  const code: unknown = error instanceof Error && "errcode" in error ? error.errcode : undefined;
  return typeof code === "number" ? code : undefined;
}

/** For a command that asked for the cache itself. */
export function unusable(directory: string, trouble: CacheTrouble): StowageError {
  const hint = hints[trouble.kind];
  return new StowageError(
    "LAYER_CACHE_UNUSABLE",
    { directory, reason: trouble.message },
    { cause: trouble, ...(hint === undefined ? {} : { hint }) },
  );
}

const hints: Readonly<Partial<Record<TroubleKind, string>>> = {
  full: "free space on its file system, or lower layer_cache_max_gigabytes",
  refused: "give the user that runs stowage the directory, or choose another tmp_dir",
  damaged: "end the other stowage processes that use it: the next one to start makes a new index",
  busy: "look for a hung stowage process that uses it",
};
