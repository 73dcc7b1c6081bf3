/** Runs the command as its users do: a process of its own, an environment of its own. Nothing here knows the sources. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";

export const root = join(import.meta.dirname, "..", "..");

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** What is run instead of the checkout's own source. */
  readonly program?: readonly string[];
  /** What stands in its standard input; left out: nothing. */
  readonly input?: string;
}

/** Starts a command. */
export function startStowage(arguments_: readonly string[], options: CommandOptions = {}): ChildProcess {
  const program = options.program ?? [join(root, "src/cli/main.ts")];
  const child = spawn(process.execPath, [...program, ...arguments_], {
    // Nothing of the developer's own settings, credentials or data gets in.
    env: {
      PATH: process.env.PATH,
      HOME: "/nonexistent",
      TMPDIR: tmpdir(),
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      ...options.env,
    },
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  child.stdin?.end(options.input);
  return child;
}

export async function ended(child: ChildProcess): Promise<Ended> {
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** Runs a command to its end. */
export function stowage(arguments_: readonly string[], options: CommandOptions = {}): Promise<Ended> {
  return ended(startStowage(arguments_, options));
}

/** The document on standard output, which must have the shape that `docs/schema/cli/NAME.json` says. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into documents of many shapes
export function documentOf(name: string, text: string): any {
  const schema = JSON.parse(readFileSync(join(root, "docs/schema/cli", `${name}.json`), "utf8"));
  return z.fromJSONSchema(schema).parse(JSON.parse(text));
}

/** A directory that is gone when the test file ends. */
export async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "stowage-acceptance-"));
  // Run by root, the embedded database is another user, who must be able to reach its directory.
  await chmod(path, 0o755);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
