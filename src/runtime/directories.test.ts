import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeDirectories } from "./directories.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-directories-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

test("makes what is missing, with the mode, and says where that begins", async () => {
  const path = join(directory, "a", "b", "c");
  expect(await makeDirectories(path, 0o700)).toBe(join(directory, "a"));
  for (const each of [path, join(directory, "a", "b"), join(directory, "a")])
    expect((await stat(each)).mode & 0o777).toBe(0o700);
  expect(await makeDirectories(path, 0o755)).toBeUndefined();
  expect((await stat(path)).mode & 0o777).toBe(0o700);
});

test("several at once make one", async () => {
  const path = join(directory, "a", "b", "c");
  const made = await Promise.all(Array.from({ length: 8 }, () => makeDirectories(path, 0o700)));
  expect(made.filter((each) => each === join(directory, "a"))).toHaveLength(1);
  expect((await stat(path)).isDirectory()).toBe(true);
});

test("follows a link to a directory, and takes no file for one", async () => {
  await mkdir(join(directory, "real"));
  await symlink("real", join(directory, "link"));
  expect(await makeDirectories(join(directory, "link", "x"), 0o700)).toBe(join(directory, "link", "x"));
  await writeFile(join(directory, "file"), "");
  await expect(makeDirectories(join(directory, "file"), 0o700)).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeDirectories(join(directory, "file", "x"), 0o700)).rejects.toMatchObject({ code: "ENOTDIR" });
});

test.runIf(process.platform === "linux")("ends where nothing can be made", async () => {
  await expect(makeDirectories("/proc/stowage-none/x/y", 0o700)).rejects.toMatchObject({ code: "ENOENT" });
});
