import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { Contender } from "./contender.ts";
import { measure, waitForDatabaseEnd } from "./measure.ts";

const checkout = join(import.meta.dirname, "..");

/** Node with the variable and the option of the published program's first line: few arenas, a small young generation. */
export const asPublished: readonly string[] = [
  "/usr/bin/env",
  "MALLOC_ARENA_MAX=2",
  process.execPath,
  "--max-semi-space-size=1",
];

/** The command as the published package runs it: compiled. */
export const stowageCommand: readonly string[] = [...asPublished, join(checkout, "bin/stowage.js")];

/** Compiles the checkout, so that what is measured is what is there. */
export function buildStowage(): void {
  execFileSync("npm", ["run", "-s", "build"], { cwd: checkout, stdio: "inherit" });
}

/** The parts of `stowage analyze -o json` that the bench shows. */
export interface StowageReport {
  readonly files: number;
  readonly packages: Readonly<Record<string, number>>;
  readonly bytesStored: number;
}

export function dataDirectory(scratch: string): string {
  return join(scratch, "data");
}

export function analyzeCommand(layout: string, tag: string, scratch: string): readonly string[] {
  const options = ["--data-dir", dataDirectory(scratch), "--output", "json", "--quiet"];
  return [...stowageCommand, "analyze", `oci:${layout}:${tag}`, ...options];
}

export function parseReport(stdout: string): StowageReport {
  return JSON.parse(stdout) as StowageReport;
}

/** Nothing is there before: the database is made, filled and stopped within the run. */
export const coldStowage: Contender = {
  name: "stowage",
  remark: "packages, file list and MD5, SHA-1 and SHA-256 of all files, kept in a database made within the run",
  async prepare() {},
  command: analyzeCommand,
  environment: () => ({}),
  dataDirectory,
};

/** As every run but a machine's first finds it: the database is there, and empty. */
export const stowageWithDatabase: Contender = {
  ...coldStowage,
  name: "stowage, database made before",
  remark: "the same, with an empty database made beforehand",
  async prepare(scratch) {
    await measure([...stowageCommand, "image", "list", "--data-dir", dataDirectory(scratch)]);
    await waitForDatabaseEnd(dataDirectory(scratch));
  },
};
