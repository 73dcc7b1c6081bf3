/** `npm run check`: everything that can be said about the code without running it. One line per step; the output of a step only when it fails. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

interface Step {
  readonly name: string;
  readonly command: readonly string[];
}

const root = join(import.meta.dirname, "..");
const program = (name: string) => join(root, "node_modules/.bin", name);

const steps: readonly Step[] = [
  { name: "types", command: [program("tsc"), "--noEmit"] },
  { name: "format and lint", command: [program("biome"), "check", "--error-on-warnings"] },
  { name: "dependencies", command: [program("depcruise"), "--config", ".dependency-cruiser.mjs", "src"] },
  { name: "unused code", command: [program("knip"), "--no-progress"] },
  ...(existsSync(join(root, "docs/generate.ts"))
    ? [{ name: "generated documents", command: [process.execPath, "docs/generate.ts", "--check"] }]
    : []),
];

const waiting = [...steps];
const failed: string[] = [];

async function work(): Promise<void> {
  for (let step = waiting.shift(); step; step = waiting.shift()) {
    const started = performance.now();
    const { status, output } = await run(step.command);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (status !== 0) failed.push(step.name);
    console.log(`${status === 0 ? "pass" : "FAIL"}  ${step.name.padEnd(20)} ${seconds.padStart(5)} s`);
    if (status !== 0) console.log(output.trimEnd().replaceAll(/^/gm, "      "));
  }
}

function run(command: readonly string[]): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    const [file = "", ...parameters] = command;
    const child = spawn(file, parameters, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    const output: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => output.push(chunk));
    child.once("error", reject);
    child.once("close", (code) => resolve({ status: code ?? 1, output: Buffer.concat(output).toString("utf8") }));
  });
}

await Promise.all(Array.from({ length: Math.min(availableParallelism(), steps.length) }, work));
if (failed.length > 0) {
  console.log(`${failed.length} of ${steps.length} failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
