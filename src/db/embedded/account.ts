import { chmod, chown, lstat, readdir, realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, StowageError } from "../../errors/index.ts";
import { makeDirectories } from "../../runtime/index.ts";

/** Whom the server runs as. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
  /** Whether that is somebody else than this process, which then is root. */
  readonly isOther: boolean;
}

/** `nobody`: PostgreSQL refuses to run as root, and this number is unprivileged everywhere. */
const NOBODY = 65534;

/**
 * Makes the data directory, mode 0700, and says whom the server in it runs as: the user of this process; for root the owner of the
 * cluster, or of the data directory, or else `nobody`, who then owns the directory.
 *
 * @param directory absolute
 * @throws StowageError `DB_EMBEDDED_FAILED` when the directory can't be made or used by that user
 */
export async function prepareDataDirectory(directory: string): Promise<Account> {
  const uid = process.getuid?.();
  const gid = process.getgid?.();
  if (uid === undefined || gid === undefined) {
    throw failed(`there is no embedded database for ${process.platform}`, "use your own PostgreSQL with --db-connect");
  }
  let firstMade: string | undefined;
  try {
    firstMade = await makeDirectories(directory, 0o700);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isFile = code === "EEXIST" || code === "ENOTDIR";
    const reason = isFile ? `${directory} is a file, or lies below one` : `it can't be made: ${messageOf(error)}`;
    throw failed(`the data directory can't be used: ${reason}`, "choose another with --data-dir", error);
  }
  const cluster = join(directory, "postgres");
  const owner = await ownerOf(cluster);
  if (uid !== 0) {
    if (owner !== undefined && owner.uid !== uid) {
      throw failed(
        `${cluster} belongs to uid ${owner.uid}, not to ${uid}`,
        "run as that user, or choose another --data-dir",
      );
    }
    return { uid, gid, isOther: false };
  }
  const directoryOwner = await ownerOf(directory);
  const account = [owner, directoryOwner].find((candidate) => candidate !== undefined && candidate.uid !== 0) ?? {
    uid: NOBODY,
    gid: NOBODY,
  };
  // An empty directory of root was made for us (`mktemp -d`, a volume); one with other things in it is left as it is.
  const isForUs = directoryOwner?.uid === 0 && (firstMade !== undefined || (await readdir(directory)).length === 0);
  for (let current = directory; isForUs; current = dirname(current)) {
    await chown(current, account.uid, account.gid);
    await chmod(current, 0o700);
    if (current === (firstMade ?? directory)) break;
  }
  const closed = await findClosed(directory, account);
  if (closed !== undefined) {
    throw failed(
      `PostgreSQL does not run as root, and uid ${account.uid}, as which it runs, can't enter ${closed}`,
      "choose a data directory outside of it, such as /var/lib/stowage, with --data-dir",
    );
  }
  return { ...account, isOther: true };
}

/**
 * The first directory above `path` (or `path` itself) that `account` can't enter. Judged by mode bits.
 * @returns `undefined` when all are open
 */
export async function findClosed(path: string, account: Pick<Account, "uid" | "gid">): Promise<string | undefined> {
  let closed: string | undefined;
  for (let current = await realpath(path); ; current = dirname(current)) {
    const { mode, uid, gid } = await stat(current);
    const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0;
    if (((mode >> shift) & 1) === 0) closed = current;
    if (current === dirname(current)) return closed;
  }
}

async function ownerOf(path: string): Promise<{ uid: number; gid: number } | undefined> {
  try {
    const { uid, gid } = await lstat(path);
    return { uid, gid };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function failed(reason: string, hint: string, cause?: unknown): StowageError {
  return new StowageError("DB_EMBEDDED_FAILED", { reason }, { hint, ...(cause === undefined ? {} : { cause }) });
}
