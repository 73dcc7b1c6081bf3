/** Layers that somebody built to do harm: what comes of each, how much memory it takes, and that no file is touched. */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

interface Result {
  readonly code?: string;
  readonly limit?: string;
  readonly crash?: string;
  readonly files?: number;
  readonly paths?: readonly string[];
  readonly notes?: readonly string[];
  readonly tarEntries?: number;
  readonly peakMebibytes: number;
}

let directory: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "stowage-hostile-"));
  for (const name of ["outside", "a/b/work", "a/b/tmp"]) await mkdir(join(directory, name), { recursive: true });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Everything in the directory, with sizes and times: names from a layer that leave its working directory by `..` end up here. */
function snapshot(): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .sort()
    .map((path) => {
      const { size, mtimeMs, mode } = statSync(join(directory, path));
      return [path, size, mtimeMs, mode].join(" ");
    });
}

async function analyze(scenario: string): Promise<Result> {
  const temporary = (path: string) => !path.startsWith("a/b/tmp ");
  const before = snapshot().filter(temporary);
  const child = spawn(process.execPath, [join(import.meta.dirname, "analyze-child.ts"), scenario], {
    cwd: join(directory, "a/b/work"),
    env: { PATH: process.env.PATH, TMPDIR: join(directory, "a/b/tmp") },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const output = await text(child.stdout);
  // Spills have no names, so that even the temporary directory is left empty; only its own time changes.
  expect(snapshot().filter(temporary)).toEqual(before);
  const result = JSON.parse(output) as Result;
  process.stderr.write(
    `hostile: ${scenario}: ${result.code ?? `${result.files} files`}, peak ${result.peakMebibytes} MiB\n`,
  );
  return result;
}

describe("hostile layers", () => {
  it("names that lead out stay inside the image, and are never names of ours", async () => {
    const { paths, notes, crash } = await analyze("names");
    expect(crash).toBeUndefined();
    expect(paths).toEqual(
      [
        "\u001b[31mred",
        "absolute",
        "b",
        "conf",
        "escaped",
        "etc",
        "etc/passwd",
        "line\nbreak",
        "link",
        "out",
        "outside",
        "outside/file",
      ].toSorted(),
    );
    expect(notes).toEqual(["outside-root", "dangling-directory"]);
  });

  it.each([
    ["a NUL in a name", { code: "LAYER_TAR_INVALID" }],
    ["a name of a mebibyte", { code: "LIMIT_EXCEEDED", limit: "pathBytesMax" }],
    ["a longer name", { code: "LIMIT_EXCEEDED", limit: "entryHeaderBytesMax" }],
    ["symlinks that grow", { code: "LIMIT_EXCEEDED", limit: "pathBytesMax" }],
    ["exabytes of holes", { code: "LIMIT_EXCEEDED", limit: "layerRatioMax" }],
    ["a size of exabytes", { code: "LAYER_TAR_INVALID" }],
    ["more entries than the limit", { code: "LIMIT_EXCEEDED", limit: "layerEntriesMax" }],
    ["one name for ever", { code: "LIMIT_EXCEEDED", limit: "nameRepeatsMax" }],
  ])("%s: refused, in little memory", async (scenario, expected) => {
    const result = await analyze(scenario);
    expect(result).toMatchObject(expected);
    expect(result.peakMebibytes).toBeLessThan(400);
  });

  it("loops of symlinks cost what lies in them, and say so", async () => {
    expect(await analyze("symlink loops")).toMatchObject({
      paths: ["a", "b", "self"],
      notes: ["symlink-loop"],
      tarEntries: 1004,
    });
  });

  it("300,000 empty entries are read, in bounded memory", async () => {
    const result = await analyze("300,000 empty entries");
    expect(result).toMatchObject({ tarEntries: 300_000, files: 300_007 });
    expect(result.peakMebibytes).toBeLessThan(400);
  });

  it("as many hard links to one file as the limits allow are read; a million are refused", async () => {
    const many = await analyze("100,000 hard links");
    expect(many).toMatchObject({ files: 99_001 });
    const million = await analyze("a million hard links");
    expect(million).toMatchObject({ code: "LIMIT_EXCEEDED", limit: "layerLinksMax" });
    for (const { peakMebibytes } of [many, million]) expect(peakMebibytes).toBeLessThan(800);
  });

  it("a layer ten times as large takes no more memory", async () => {
    const small = await analyze("60 MB");
    const large = await analyze("600 MB");
    expect([small.files, large.files]).toEqual([60, 600]);
    expect(large.peakMebibytes).toBeLessThan(1.5 * small.peakMebibytes);
  });
});
