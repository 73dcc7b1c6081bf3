import { writeFile } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startRegistry, type TestRegistry } from "../registry/registry-server.ts";
import { documentOf, ended, startStowage, stowage, temporaryDirectory } from "./command.ts";
import { type Images, writeImages } from "./images.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let images: Images;
let layout: string;
let registry: TestRegistry;
let data: readonly string[];

beforeAll(async () => {
  directory = await temporaryDirectory();
  layout = join(directory.path, "layout");
  images = writeImages(layout);
  data = ["--data-dir", join(directory.path, "data")];
  registry = await startRegistry();
  registry.push("team/app", images.first, "1.0", "latest");
  registry.push("team/app", images.second, "2.0");
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

const run = (line: readonly string[], input?: string) =>
  stowage([...line, ...data], input === undefined ? {} : { input });

/** Analyses several sources; exit code, document, and the error on standard error. */
async function several(line: readonly string[], input?: string) {
  const { code, stdout, stderr } = await run(["analyze", ...line, "-o", "json", "--quiet"], input);
  return {
    code,
    ...(stdout === "" ? {} : { document: documentOf("analyze-several", stdout) }),
    error: stderr === "" ? undefined : documentOf("error", stderr).error,
  };
}

interface Layer {
  readonly diffId: string;
  readonly outcome: string;
}

interface Result {
  readonly source: string;
  readonly outcome: string;
  readonly report: { readonly digest: string; readonly layers: readonly Layer[] };
  readonly error: { readonly code: string };
}

const outcomes = (document: { sources: readonly Result[] }) =>
  document.sources.map(({ source, outcome, report, error }) => [source, report?.digest ?? error?.code ?? outcome]);

async function listed(): Promise<readonly string[]> {
  const { stdout } = await run(["image", "list", "-o", "json"]);
  return documentOf("image-list", stdout)
    .images.map(({ digest }: { digest: string }) => digest)
    .sort();
}

// The order matters: each test goes on where the one before it ended.
describe("several sources", () => {
  it("are analysed whatever becomes of one of them, and a layer that two share is read once", async () => {
    const sources = [`oci:${layout}:1`, `oci:${layout}:broken`, `oci:${layout}:2`, `oci:${layout}:1`];
    const { code, document, error } = await several(sources);
    const { first, second } = images;
    expect(outcomes(document)).toEqual([
      [sources[0], first.descriptor.digest],
      [sources[1], "IMAGE_SIZE_MISMATCH"],
      [sources[2], second.descriptor.digest],
    ]);
    expect(document).toMatchObject({ analyzed: 2, failed: 1, notDone: 0 });
    expect(code).toBe(1);
    expect(error).toMatchObject({ code: "IMAGE_SEVERAL_FAILED", details: { failed: 1, of: 3 } });
    const layers = document.sources.flatMap(({ report }: Result) => report?.layers ?? []);
    const read = layers.filter(({ outcome }: Layer) => outcome === "analyzed").map(({ diffId }: Layer) => diffId);
    expect(new Set(read).size).toBe(read.length);
    // The lowest may have been read for the broken one.
    const own = [...first.layers.slice(1), ...second.layers.slice(2)].map(({ diffId }) => diffId);
    expect(read).toEqual(expect.arrayContaining(own));
    expect(await listed()).toEqual([first.descriptor.digest, second.descriptor.digest].sort());
  });

  it("have a line of progress each and a table at the end", async () => {
    const sources = [`oci:${layout}:1`, `oci:${layout}:2`, "oci:/nonexistent"];
    const { code, stdout, stderr } = await run(["analyze", ...sources]);
    expect(code).toBe(1);
    const lines = stdout.split("\n").map((line) => line.replaceAll(/ {2,}/g, "|"));
    expect(lines[0]).toBe("SOURCE|IMAGE|LAYERS|FILES|PACKAGES|TOOK|WHY");
    expect(lines[1]).toMatch(/^oci:.*:1[|]sha256:[0-9a-f]{12}[|]0 read, 3 known[|]3,017[|]apk 1, npm 1[|]\d+.*s$/);
    expect(lines[3]).toMatch(/^oci:\/nonexistent[|]failed[|]IMAGE_SOURCE_UNREADABLE: the image source can't be read /);
    expect(lines[5]).toMatch(/^2 of 3 images analysed, 1 failed; 0 B read, 0 B newly stored in /);
    const progress = stderr.split("\n");
    expect(progress.filter((line) => /^\[[123]\/3\] oci:/.test(line))).toHaveLength(3);
    expect(stderr).toMatch(/\nerror: not all images could be analysed \(failed: 1; of: 3\)\n/);
  });

  it("come from a list, a file or standard input, too", async () => {
    const list = `\ufeff# ours\r\n\r\n  oci:${layout}:2  \r\n#oci:${layout}:broken\noci:${layout}:1\n`;
    const file = join(directory.path, "list.txt");
    await writeFile(file, list);
    const expected = [`oci:${layout}:1`, `oci:${layout}:2`];
    for (const [name, input] of [
      [file, undefined],
      ["-", list],
    ] as const) {
      const { code, document, error } = await several([`oci:${layout}:1`, "--from-file", name], input);
      expect(error).toBeUndefined();
      expect(code).toBe(0);
      expect(document.sources.map(({ source }: Result) => source)).toEqual(expected);
    }
  });

  it("come from a repository's tags", async () => {
    const repository = `${registry.host}/team/app`;
    const { code, document, error } = await several([
      "--all-tags",
      repository,
      `${repository}:2.0`,
      "--all-tags",
      `${registry.host}/team/none`,
    ]);
    const { first, second } = images;
    expect(outcomes(document)).toEqual([
      [`${repository}:2.0`, second.descriptor.digest],
      [`${repository}:1.0`, first.descriptor.digest],
      [`${repository}:latest`, first.descriptor.digest],
      [`${registry.host}/team/none`, "IMAGE_NOT_FOUND"],
    ]);
    expect({ code, error: error.code }).toEqual({ code: 1, error: "IMAGE_SEVERAL_FAILED" });
    const { stdout } = await run(["image", "get", `${repository}:latest`, "-o", "json"]);
    expect(documentOf("image-get", stdout).fullTags).toEqual([`${repository}:1.0`, `${repository}:latest`]);
  });

  it("end with the code that all failures share, else 1", async () => {
    const unreachable = "localhost:1/x";
    expect((await several([`oci:${layout}:1`, unreachable])).code).toBe(3);
    expect((await several([`oci:${layout}:1`, "http://x"])).code).toBe(2);
    expect((await several([unreachable, "oci:/nonexistent"])).code).toBe(1);
  });

  it.each([
    ["--name", ["a", "b", "--name", "x:1"]],
    ["--name", ["--all-tags", "a", "--name", "x:1"]],
    ["--from-file", ["--from-file", "/nonexistent"]],
    ["--from-file", ["--from-file", "-"]],
    ["platform", ["a", "b", "--platform", "a/b/c/d"]],
  ])("are refused before any of them is opened: %s of %j", async (what, line) => {
    const { code, document, error } = await several(line, "# nothing\n");
    expect({ code, document }).toEqual({ code: 2, document: undefined });
    expect(error.code).toBe("INPUT_INVALID");
    expect(error.details.what).toContain(what);
  });

  it("are no more than a limit", async () => {
    const { code, document, error } = await several(["a", "b", "docker.io/a:latest", "c", "--limit", "sourcesMax=2"]);
    expect({ code, document }).toEqual({ code: 1, document: undefined });
    expect(error).toMatchObject({ code: "LIMIT_EXCEEDED", details: { limit: "sourcesMax", max: 2 } });
  });
});

describe("an interrupt", () => {
  let server: Server;
  let silent: string;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    // A registry that never answers.
    server = createServer((socket) => sockets.add(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    silent = `127.0.0.1:${(server.address() as { port: number }).port}/x`;
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  it("leaves what is done, and says what is not", async () => {
    const sources = [
      `oci:${layout}:1`,
      ...Array.from({ length: 10 }, (_, tag) => `${silent}:${tag}`),
      `oci:${layout}:2`,
    ];
    const child = startStowage(["analyze", ...sources, "-o", "json", ...data]);
    const isFirstDone = new Promise<void>((resolve) => {
      child.stderr?.on("data", (text) => String(text).includes('"sourceEnded"') && resolve());
    });
    const end = ended(child);
    await Promise.race([isFirstDone, end]);
    child.kill("SIGINT");
    const { code, stdout, stderr } = await end;
    expect(code).toBe(130);
    const { sources: results, ...counts } = documentOf("analyze-several", stdout);
    expect(counts).toMatchObject({ analyzed: 1, failed: 0, notDone: 11 });
    expect(results.map(({ outcome }: Result) => outcome)).toEqual(["analyzed", ...Array(11).fill("notDone")]);
    expect(stderr.trim().split("\n").at(-1)).toContain('"code":"INPUT_INTERRUPTED"');
  });
});
