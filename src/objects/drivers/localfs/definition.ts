import { readFile, statfs } from "node:fs/promises";
import { isAbsolute, normalize } from "node:path";
import { z } from "zod";
import { StowageError } from "../../../errors/index.ts";
import type { DriverDefinition } from "../../driver.ts";
import { openLocalFiles } from "./local-files-driver.ts";

function octal(needed: number, allowed: number, meaning: string) {
  return z
    .string({ error: "must be a quoted octal number: unquoted, YAML reads 0640 as a decimal one" })
    .regex(/^[0-7]{3,4}$/, 'must be three or four octal digits, for example "0640"')
    .transform((text) => Number.parseInt(text, 8))
    .refine((mode) => (mode & needed) === needed && (mode & ~allowed) === 0, meaning);
}

const schema = z.strictObject({
  archive_data_dir: z
    .string()
    .refine((path) => isAbsolute(path) && !path.includes("\0"), "must be an absolute path")
    .transform((path) => normalize(path).replace(/(?<=.)\/+$/, ""))
    .describe("the directory that holds the files; made if it is not there"),
  file_mode: octal(0o600, 0o666, "must let the owner read and write, and nobody execute")
    .prefault("0640")
    .describe("permissions of files, octal"),
  directory_mode: octal(0o700, 0o2777, "must let the owner read, write and search")
    .prefault("0750")
    .describe("permissions of directories that stowage makes, octal"),
  group: z
    .union([z.int().min(0).max(0xffff_fffe), z.string().regex(/^[^\s:]{1,64}$/, "must be a group's name or number")])
    .optional()
    .describe("the group of files and directories that stowage makes: a name or a number"),
});

/** `storage_driver: {name: localfs}`. */
export const localfsDriver: DriverDefinition<z.output<typeof schema>> = {
  name: "localfs",
  aliases: [],
  summary: "files in a directory",
  schema,
  settingsOf: ({ archive_data_dir }) => ({ archive_data_dir }),
  isOverlap: (one, other) =>
    isWithin(one.archive_data_dir, other.archive_data_dir) || isWithin(other.archive_data_dir, one.archive_data_dir),
  async freeBytes({ archive_data_dir }) {
    const { bavail, bsize } = await statfs(archive_data_dir);
    return bavail * bsize;
  },
  async open({ archive_data_dir, file_mode, directory_mode, group }, _surroundings, call) {
    return await openLocalFiles(
      {
        root: archive_data_dir,
        fileMode: file_mode,
        directoryMode: directory_mode,
        ...(group === undefined ? {} : { group: typeof group === "number" ? group : await groupNumber(group) }),
      },
      call,
    );
  },
};

/** By their names: where links lead is not looked at. */
function isWithin(inner: string, outer: string): boolean {
  return inner !== outer && inner.startsWith(outer.endsWith("/") ? outer : `${outer}/`);
}

/** Node can't ask the system for a group's number, so this is the local table only. */
async function groupNumber(name: string): Promise<number> {
  if (/^[0-9]{1,9}$/.test(name)) return Number(name);
  const table = await readFile("/etc/group", "utf8").catch(() => "");
  const number = table
    .split("\n")
    .map((line) => line.split(":"))
    .find(([group]) => group === name)?.[2];
  if (number !== undefined && /^[0-9]{1,10}$/.test(number)) return Number(number);
  const reason = `/etc/group has no group ${name}`;
  throw new StowageError("CONFIG_INVALID", { key: "group", reason }, { hint: "give the group's number instead" });
}
