import { type ChildProcess, spawn } from "node:child_process";
import { openAsBlob } from "node:fs";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { blobPath, type Descriptor, readDescriptors, readJson } from "../layout.ts";
import { findProgram } from "../program.ts";

const START_TIMEOUT_MS = 20_000;
const LOG_TIMEOUT_MS = 10_000;

/** A real registry on the loopback interface: Debian's `docker-registry`, in a directory of its own. */
export interface Registry extends AsyncDisposable {
  /** Copies an image of a layout, under its tag or another; returns its reference. Blobs that are there already are not sent again. */
  push(layout: string, tag: string, as?: string): Promise<string>;
  /** What it has answered so far, from its access log. */
  served(): Promise<Served>;
}

export interface Served {
  readonly requests: number;
  /** Bodies of the answers to GET: manifests, configurations and layers. */
  readonly bytes: number;
}

export const registryMissing = "docker-registry: not found; apt-get install docker-registry";

/** Undefined where there is no program. */
export async function startRegistry(directory: string): Promise<Registry | undefined> {
  const program = findProgram("docker-registry");
  if (program === undefined) return undefined;
  await mkdir(directory, { recursive: true });
  const port = await freePort();
  const config = join(directory, "config.yml");
  // JSON is YAML. The log of the program itself goes elsewhere: only requests are counted.
  const settings = {
    version: 0.1,
    log: { level: "error", accesslog: { disabled: false } },
    storage: { filesystem: { rootdirectory: join(directory, "store") } },
    http: { addr: `127.0.0.1:${port}` },
  };
  await writeFile(config, JSON.stringify(settings));
  const accessLog = join(directory, "access.log");
  await using log = await open(accessLog, "w");
  await using errors = await open(join(directory, "error.log"), "w");
  const child = spawn(program, ["serve", config], { stdio: ["ignore", log.fd, errors.fd] });
  const base = `http://127.0.0.1:${port}/v2/`;
  try {
    await waitUntilReady(base, child);
  } catch (error) {
    await end(child);
    throw error;
  }
  let questions = 0;
  return {
    async push(layout, tag, as = tag) {
      const descriptor = (await readDescriptors(layout)).get(tag);
      if (descriptor === undefined) throw new Error(`${layout} has no image ${tag}`);
      await pushImage(`${base}bench/`, layout, descriptor, as);
      return `127.0.0.1:${port}/bench:${as}`;
    },
    async served() {
      // A line is written after the answer was sent. Once it has logged this question, it has logged what was asked before.
      const mark = `bench-question-${++questions}`;
      await answered(await fetch(`${base}?${mark}`), 200);
      const deadline = performance.now() + LOG_TIMEOUT_MS;
      for (;;) {
        const text = await readFile(accessLog, "utf8");
        if (text.includes(`${mark} `)) return count(text);
        if (performance.now() > deadline) throw new Error("the registry logs no requests");
        await delay(20);
      }
    },
    [Symbol.asyncDispose]: () => end(child),
  };
}

/** Lines as Apache writes them: `… "GET /v2/… HTTP/1.1" 200 1234 …`. */
function count(log: string): Served {
  let requests = 0;
  let bytes = 0;
  for (const [, method, path = "", size] of log.matchAll(/"([A-Z]+) (\S+) [^"]*" \d+ (\d+)/g)) {
    if (path.includes("bench-question-")) continue;
    requests++;
    if (method === "GET") bytes += Number(size);
  }
  return { requests, bytes };
}

async function pushImage(base: string, layout: string, descriptor: Descriptor, tag: string): Promise<void> {
  const path = blobPath(layout, descriptor.digest);
  const { config, layers } = await readJson<{ config: Descriptor; layers: readonly Descriptor[] }>(path);
  for (const { digest } of [config, ...layers]) {
    const head = await fetch(`${base}blobs/${digest}`, { method: "HEAD" });
    if (head.status === 200) continue;
    const started = await answered(await fetch(`${base}blobs/uploads/`, { method: "POST" }), 202);
    const upload = new URL(started.headers.get("location") ?? "", base);
    upload.searchParams.set("digest", digest);
    const headers = { "content-type": "application/octet-stream" };
    const body = await openAsBlob(blobPath(layout, digest));
    await answered(await fetch(upload, { method: "PUT", headers, body }), 201);
  }
  const headers = { "content-type": descriptor.mediaType };
  await answered(await fetch(`${base}manifests/${tag}`, { method: "PUT", headers, body: await readFile(path) }), 201);
}

async function answered(response: Response, status: number): Promise<Response> {
  const text = await response.text();
  if (response.status !== status) throw new Error(`${response.url} answered ${response.status}: ${text.slice(0, 500)}`);
  return response;
}

async function waitUntilReady(base: string, child: ChildProcess): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}`);
    const isReady = await fetch(base).then(
      (response) => response.ok,
      () => false,
    );
    if (isReady) return;
    if (performance.now() > deadline) throw new Error("docker-registry does not answer");
    await delay(50);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  // It has nothing to save.
  child.kill("SIGKILL");
  await ended;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}
