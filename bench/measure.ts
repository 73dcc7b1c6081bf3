import { spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** What one run of a command cost. */
export interface Measurement {
  readonly wallMs: number;
  /** User and system time of the command and all descendants it waited for. */
  readonly cpuMs: number;
  /** Largest resident set of the whole process tree, database processes aside. */
  readonly peakRssBytes: number;
  /** Largest resident set of the PostgreSQL processes in {@link RunOptions.dataDirectory}; 0 when there are none. Shared buffers count once per process. */
  readonly databasePeakRssBytes: number;
  readonly stdout: string;
}

interface RunOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Where an embedded PostgreSQL of the command would live. Processes whose working directory is below it are counted apart. */
  readonly dataDirectory?: string;
}

/** Each sample costs a millisecond or so: more of them would take the processors of what they measure. */
const SAMPLE_INTERVAL_MS = 50;
const PAGE_BYTES = 4096;

/**
 * Runs a command to its end and measures it. The shell in between exists for its `times`, the only portable way to learn the processor
 * time of a child; it is counted neither as memory nor (a millisecond apart) as time.
 * Output goes to files: a daemon that inherits a pipe would keep it open after the command has ended.
 */
export async function measure(command: readonly string[], options: RunOptions = {}): Promise<Measurement> {
  const directory = await mkdtemp(join(tmpdir(), "stowage-measure-"));
  const files = ["stdout", "stderr", "times"].map((name) => join(directory, name)) as [string, string, string];
  const descriptors = files.map((file) => openSync(file, "w"));
  try {
    const started = performance.now();
    const child = spawn("/bin/sh", ["-c", '"$@" 3>&-; status=$?; times >&3; exit $status', "sh", ...command], {
      stdio: ["ignore", ...descriptors],
      env: { ...process.env, ...options.environment },
    });
    const sampler = new TreeSampler(child.pid ?? 0, options.dataDirectory);
    const timer = setInterval(() => sampler.sample(), SAMPLE_INTERVAL_MS);
    const status = await new Promise<string>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) => resolve(String(code ?? signal)));
    }).finally(() => clearInterval(timer));
    const wallMs = performance.now() - started;
    const [stdout, stderr, times] = await Promise.all(files.map((file) => readFile(file, "utf8")));
    if (status !== "0") throw new Error(`${command.join(" ")} ended with ${status}: ${stderr?.slice(-2000)}`);
    return {
      wallMs,
      cpuMs: parseChildTimes(times ?? ""),
      peakRssBytes: sampler.peakRssBytes,
      databasePeakRssBytes: sampler.databasePeakRssBytes,
      stdout: stdout ?? "",
    };
  } finally {
    for (const descriptor of descriptors) closeSync(descriptor);
    await rm(directory, { recursive: true, force: true });
  }
}

/** Waits until no PostgreSQL process works below the directory, so that it can be removed. */
export async function waitForDatabaseEnd(dataDirectory: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (databaseProcesses(dataDirectory).length > 0) {
    if (performance.now() > deadline) throw new Error(`PostgreSQL still runs in ${dataDirectory}`);
    await delay(20);
  }
}

/** The second line of the shell's `times`: user and system time of its children, each `MmS.SSs`. */
function parseChildTimes(text: string): number {
  const parts = (text.split("\n")[1] ?? "").match(/(\d+)m([\d.]+)s/g) ?? [];
  if (parts.length !== 2) throw new Error(`unexpected output of times: ${text}`);
  return parts.reduce((sum, part) => {
    const [minutes = "0", seconds = "0"] = part.slice(0, -1).split("m");
    return sum + Number(minutes) * 60_000 + Number(seconds) * 1000;
  }, 0);
}

/**
 * Follows the memory of a process tree. A sum is known only at the sampled instants, while the kernel keeps each process's own
 * high-water mark: the peak is the greater of the largest sum seen and the largest mark, so it is exact for a tree of one process.
 */
class TreeSampler {
  peakRssBytes = 0;
  databasePeakRssBytes = 0;
  #samples = 0;
  #daemons: readonly number[] = [];
  readonly #root: number;
  readonly #dataDirectory: string | undefined;

  constructor(root: number, dataDirectory: string | undefined) {
    this.#root = root;
    this.#dataDirectory = dataDirectory;
  }

  sample(): void {
    // A daemon leaves the tree: look through all processes for it now and then, since that costs more than following the tree.
    if (this.#dataDirectory && this.#samples++ % 10 === 0) this.#daemons = databaseProcesses(this.#dataDirectory);
    const tree = descendants(this.#root).filter((pid) => !this.#daemons.includes(pid) && readComm(pid) !== "postgres");
    const marks = tree.map((pid) => readStatusKib(pid, "VmHWM") * 1024);
    this.peakRssBytes = Math.max(this.peakRssBytes, sum(tree.map(readRssBytes)), ...marks);
    this.databasePeakRssBytes = Math.max(this.databasePeakRssBytes, sum(this.#daemons.map(readRssBytes)));
  }
}

function descendants(pid: number): number[] {
  const found: number[] = [];
  for (const task of listDirectory(`/proc/${pid}/task`)) {
    for (const child of readProc(`/proc/${pid}/task/${task}/children`).split(" ").filter(Boolean).map(Number)) {
      found.push(child, ...descendants(child));
    }
  }
  return found;
}

/** PostgreSQL's processes all work in their cluster's directory. */
function databaseProcesses(dataDirectory: string): number[] {
  return listDirectory("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => readComm(pid) === "postgres" && readWorkingDirectory(pid).startsWith(`${dataDirectory}/`));
}

function readRssBytes(pid: number): number {
  return Number(readProc(`/proc/${pid}/statm`).split(" ")[1] ?? 0) * PAGE_BYTES;
}

function readStatusKib(pid: number, field: string): number {
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB`, "m").exec(readProc(`/proc/${pid}/status`))?.[1] ?? 0);
}

/** The most memory that this process has had. Not `maxRSS`, where Linux begins with what the process had that started this one. */
export function peakMemory(): number {
  const highWater = readStatusKib(process.pid, "VmHWM");
  if (highWater === 0) throw new Error("/proc/self/status says nothing of VmHWM");
  return highWater * 1024;
}

function readComm(pid: number): string {
  return readProc(`/proc/${pid}/comm`).trim();
}

// Processes end while they are looked at: what is gone reads as nothing.
function readProc(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readWorkingDirectory(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return "";
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
