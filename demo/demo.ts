/**
 * `npm run demo`: builds the container image of this very checkout, analyses it, keeps it, and reads it back. No network, no root, nothing left behind.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { text as readAll } from "node:stream/consumers";
import { promisify } from "node:util";
import { buildCheckoutImages } from "./checkout-image.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "..");
const program = join(root, "src/cli/main.ts");

interface Analysis {
  readonly digest: string;
  readonly layers: readonly { readonly outcome: string; readonly bytesRead: number; readonly blobBytes: number }[];
  readonly files: number;
  readonly packages: Readonly<Record<string, number>>;
  readonly bytesRead: number;
  readonly bytesStored: number;
  readonly durationMs: number;
}

interface NpmTree {
  readonly version?: string;
  readonly missing?: boolean;
  readonly dependencies?: Readonly<Record<string, NpmTree>>;
}

const directory = await mkdtemp(join(tmpdir(), "stowage-demo-"));
// As root the embedded PostgreSQL runs as another user, who must be able to pass here.
await chmod(directory, 0o711);
const interruption = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => interruption.abort());
try {
  await demo(join(directory, "image"), join(directory, "data"));
} catch (error) {
  if (!interruption.signal.aborted) throw error;
  console.error("interrupted");
  process.exitCode = 130;
} finally {
  await rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}

async function demo(layout: string, data: string): Promise<void> {
  title("Building the container image of this checkout (an OCI layout, two tags)");
  await buildCheckoutImages(root, layout, interruption.signal, ({ name, files, bytes }) =>
    console.log(`  ${name.padEnd(34)}${number(files).padStart(8)} files${size(bytes).padStart(12)}`),
  );

  title("Analysing it: each layer is streamed once, nothing is unpacked");
  const first = await analyze(layout, "demo", data);

  title("Reading it back from the store");
  await show(["image", "list"], data);
  const names = await npmPackagesFound(first.digest, data);
  const expected = await npmPackagesInstalled();
  const missing = [...expected].filter((name) => !names.has(name));
  const extra = [...names].filter((name) => !expected.has(name));
  if (missing.length > 0 || extra.length > 0) {
    console.error(
      `  npm ls disagrees. Missing: ${missing.join(", ") || "none"}. Extra: ${extra.join(", ") || "none"}.`,
    );
    process.exitCode = 1;
    return;
  }
  console.log(
    `\n  npm ls agrees: ${number(expected.size)} different npm packages, name by name and version by version.`,
  );

  title("Analysing a second image that shares all layers but one");
  const second = await analyze(layout, "demo-next", data);
  const read = second.layers.filter(({ outcome }) => outcome === "analyzed").length;
  if (read !== 1) throw new Error(`${read} layers were read instead of one`);
  console.log(
    `\n  ${second.layers.length - read} of ${second.layers.length} layers were known: ${size(second.bytesRead)} read instead of ${size(first.bytesRead)},` +
      ` ${size(second.bytesStored)} more kept instead of ${size(first.bytesStored)}.`,
  );
}

async function analyze(layout: string, tag: string, data: string): Promise<Analysis> {
  const args = ["analyze", `oci:${layout}:${tag}`, "--name", `localhost/stowage:${tag}`];
  console.log(`  $ stowage ${args.join(" ")}`);
  const report = JSON.parse(await output([...args, "--quiet"], data)) as Analysis;
  const packages = Object.entries(report.packages).map(([type, count]) => `${number(count)} ${type}`);
  console.log(`
  layers    ${report.layers.map(({ outcome, blobBytes }) => `${size(blobBytes)} ${outcome}`).join(", ")}
  files     ${number(report.files)}, each with MD5, SHA-1 and SHA-256
  packages  ${packages.join(", ")}
  took      ${seconds(report.durationMs)}, ${size(report.bytesRead)} read
  kept      ${size(report.bytesStored)}`);
  return report;
}

/** Runs a command as a user would, its output shown. */
async function show(args: readonly string[], data: string): Promise<void> {
  console.log(`  $ stowage ${args.join(" ")}`);
  const text = await output(args, data, "table");
  console.log(text.replace(/^/gm, "  ").trimEnd());
}

/** Standard output of a command. */
async function output(args: readonly string[], data: string, format: "json" | "table" = "json"): Promise<string> {
  const child = spawn(process.execPath, [program, ...args, "--data-dir", data, "--output", format], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  // A Ctrl-C reaches the whole group; a signal to this process alone is handed on, and the child cleans up before it goes.
  const stop = () => child.kill("SIGINT");
  interruption.signal.addEventListener("abort", stop);
  try {
    const [text, [code]] = await Promise.all([readAll(child.stdout), once(child, "close")]);
    interruption.signal.throwIfAborted();
    if (code !== 0) throw new Error(`stowage ${args[0]} ended with exit code ${code}`);
    return text;
  } finally {
    interruption.signal.removeEventListener("abort", stop);
  }
}

async function npmPackagesFound(digest: string, data: string): Promise<ReadonlySet<string>> {
  const content = JSON.parse(await output(["image", "content", digest, "npm"], data)) as {
    readonly packages: readonly { readonly name: string; readonly version: string }[];
  };
  return new Set(content.packages.map(({ name, version }) => `${name}@${version}`));
}

/** What npm itself says is installed. */
async function npmPackagesInstalled(): Promise<ReadonlySet<string>> {
  const { stdout } = await run("npm", ["ls", "--all", "--json"], { cwd: root, maxBuffer: 256 * 1024 * 1024 }).catch(
    // npm exits with 1 for a tree that it finds fault with, and prints it all the same.
    (error: { stdout?: string }) => ({ stdout: error.stdout ?? "{}" }),
  );
  const found = new Set<string>();
  const visit = (tree: NpmTree): void => {
    for (const [name, child] of Object.entries(tree.dependencies ?? {})) {
      if (child.version !== undefined && !child.missing) found.add(`${name}@${child.version}`);
      visit(child);
    }
  };
  visit(JSON.parse(stdout) as NpmTree);
  return found;
}

function title(text: string): void {
  console.log(`\n${process.stdout.isTTY && !process.env.NO_COLOR ? `\u001b[1m${text}\u001b[22m` : text}`);
}

function number(value: number): string {
  return value.toLocaleString("en-US");
}

function size(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}
