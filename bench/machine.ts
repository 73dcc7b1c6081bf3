import { execFileSync } from "node:child_process";
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { megabytes } from "./report.ts";

/** What one has to know to read the figures, or to make them again. */
export function describeMachine(command: string): string[] {
  return [
    `command: \`${command.trim()}\``,
    `commit: ${git("rev-parse", "--short=12", "HEAD")}${git("status", "--porcelain") === "" ? "" : " with uncommitted changes"}`,
    `date: ${new Date().toISOString()}`,
    `machine: ${cpus()[0]?.model ?? "unknown processor"}, ${availableParallelism()} cores, ${megabytes(totalmem())} of memory, ${process.platform} ${release()}`,
    `node: ${process.version}`,
  ];
}

function git(...parameters: string[]): string {
  const cwd = join(import.meta.dirname, "..");
  return execFileSync("git", parameters, { cwd, encoding: "utf8" }).trim();
}
