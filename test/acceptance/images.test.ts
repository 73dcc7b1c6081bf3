import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentOf, ended, startStowage, stowage, temporaryDirectory } from "./command.ts";
import { type Images, writeImages } from "./images.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let images: Images;
let layout: string;
let data: readonly string[];

beforeAll(async () => {
  directory = await temporaryDirectory();
  layout = join(directory.path, "layout");
  images = writeImages(layout);
  data = ["--data-dir", join(directory.path, "data")];
});
afterAll(() => directory?.[Symbol.asyncDispose]());

const run = (...line: readonly string[]) => stowage([...line, ...data]);

/** Runs a command that must succeed; its document. */
async function json(name: string, ...line: readonly string[]) {
  const { code, stdout, stderr } = await run(...line, "-o", "json");
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return documentOf(name, stdout);
}

async function failure(...line: readonly string[]) {
  const { code, stdout, stderr } = await run(...line, "-o", "json", "--quiet");
  expect(stdout).toBe("");
  return { code, ...documentOf("error", stderr).error };
}

// The order matters: each test goes on where the one before it ended, as a person would.
describe("from an empty directory to an analysed image and back", () => {
  it("lists nothing at first", async () => {
    expect(await json("image-list", "image", "list")).toEqual({ images: [] });
    expect((await run("image", "list")).stdout).toMatch(/^DIGEST +TAG .*\n$/);
  });

  it("analyses an image", async () => {
    const report = await json("analyze", "analyze", `oci:${layout}:1`, "--name", "example.com/app:1");
    expect(report).toMatchObject({
      digest: images.first.descriptor.digest,
      imageId: images.first.configDigest,
      fullTag: "example.com/app:1",
      platform: "linux/amd64",
      distribution: { id: "alpine", version: "3.20.1" },
      packages: { apk: 1, npm: 1 },
      wasKnown: false,
    });
    expect(report.layers.map(({ outcome, diffId }: { outcome: string; diffId: string }) => [outcome, diffId])).toEqual(
      images.first.layers.map(({ diffId }) => ["analyzed", diffId]),
    );
    expect(report.bytesRead).toBe(images.first.layers.reduce((sum, { blob }) => sum + blob.length, 0));
    expect(report.bytesStored).toBeGreaterThan(0);
  });

  it("reads only the new layer of a second one, and says so in lines when piped", async () => {
    const { code, stdout, stderr } = await run("analyze", `oci:${layout}:2`, "--name", "example.com/app:2");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^digest +sha256:/);
    expect(stdout).toMatch(/^layers +3 \(2 known before\)$/m);
    expect(stdout).toMatch(/^packages +apk 1, npm 1$/m);
    expect(stderr).not.toBe("");
    expect(stderr).not.toContain("\u001b");
  });

  it("does nothing for an image that it knows", async () => {
    const { code, stdout, stderr } = await run("analyze", `oci:${layout}:1`, "--name", "example.com/app:1", "--quiet");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^took .*known already$/m);
    expect(stdout).toMatch(/^read +0 B$/m);
  });

  it("lists them, newest first", async () => {
    const { images: listed } = await json("image-list", "image", "list");
    expect(listed.map(({ fullTags }: { fullTags: string[] }) => fullTags)).toEqual([
      ["example.com/app:2"],
      ["example.com/app:1"],
    ]);
    const { stdout } = await run("image", "list");
    expect(stdout.split("\n")).toHaveLength(4);
  });

  it("finds one by tag, digest and image id", async () => {
    const byTag = await json("image-get", "image", "get", "example.com/app:1");
    expect(byTag).toMatchObject({
      digest: images.first.descriptor.digest,
      suidFiles: [{ path: "bin/bbsuid", mode: "4755" }],
      users: 2,
      config: { architecture: "amd64" },
    });
    expect(byTag.layerList).toHaveLength(3);
    expect(await json("image-get", "image", "get", images.first.descriptor.digest)).toEqual(byTag);
    expect(await json("image-get", "image", "get", images.first.configDigest)).toEqual(byTag);
    const { code, stdout } = await run("image", "get", "example.com/app:1");
    expect(code).toBe(0);
    expect(stdout).toContain("bin/bbsuid");
  });

  it("lists packages, with the files of the operating system's", async () => {
    const { packages } = await json("image-content-packages", "image", "content", "example.com/app:1", "os");
    expect(packages).toMatchObject([
      {
        type: "apk",
        name: "busybox",
        version: "1.36.1-r29",
        architecture: "x86_64",
        licenses: ["GPL-2.0-only"],
        location: "lib/apk/db/installed",
        layer: 0,
      },
    ]);
    expect(packages[0].files.map(({ path }: { path: string }) => path)).toContain("bin/busybox");
    const npm = await json("image-content-packages", "image", "content", "example.com/app:2", "npm");
    expect(npm.packages).toMatchObject([{ name: "left-pad", version: "1.2.0", layer: 2 }]);
    expect(await json("image-content-packages", "image", "content", "example.com/app:1", "rpm")).toMatchObject({
      packages: [],
    });
    const { stdout } = await run("image", "content", "example.com/app:1", "apk");
    expect(stdout.split("\n")[1]).toMatch(
      /^busybox +1\.36\.1-r29 +x86_64 +963 kB +GPL-2\.0-only +lib\/apk\/db\/installed$/,
    );
  });

  it("lists files as they are in the squashed view, whatever their names", async () => {
    const { files } = await json("image-content-files", "image", "content", "example.com/app:1", "files");
    const paths = files.map(({ path }: { path: string }) => path);
    expect(paths).toContain("bin/busybox");
    expect(paths).toContain("app/evil\u001b[2Jname");
    expect(paths).toContain("app/latin1-\udce9");
    expect(paths).not.toContain("bin/sh");
    expect(files.find(({ path }: { path: string }) => path === "bin/busybox")).toMatchObject({
      type: "file",
      mode: "0755",
      sizeBytes: 10,
      sha256: createHash("sha256").update("not really").digest("hex"),
    });
    const { code, stdout } = await run("image", "content", "example.com/app:1", "files");
    expect(code).toBe(0);
    expect(stdout.split("\n")).toHaveLength(files.length + 1);
    expect(stdout).toMatch(/^-rwsr-xr-x 0:0 +6 [0-9a-f]{64} bin\/bbsuid$/m);
    expect(stdout).toContain(" app/evil\\x1b[2Jname\n");
    expect(stdout).toContain(" app/latin1-\\xe9\n");
    expect(stdout).not.toContain("\u001b");
  });

  it("ends quietly when the reader of its output goes", async () => {
    for (const format of ["table", "json"]) {
      const child = startStowage(["image", "content", "example.com/app:1", "files", "-o", format, ...data]);
      child.stdout?.once("data", () => child.stdout?.destroy());
      expect(await ended(child)).toMatchObject({ code: 0, signal: null, stderr: "" });
    }
  });

  it("serves several commands at once", async () => {
    const all = await Promise.all([1, 2, 3].map(() => run("image", "list", "-o", "json")));
    expect(all.map(({ code, stderr }) => [code, stderr])).toEqual([1, 2, 3].map(() => [0, ""]));
    expect(new Set(all.map(({ stdout }) => stdout)).size).toBe(1);
  });

  it("deletes an image without asking a script; the other stays", async () => {
    expect(await json("image-delete", "image", "delete", "example.com/app:1")).toMatchObject({
      digest: images.first.descriptor.digest,
      fullTags: ["example.com/app:1"],
    });
    expect(await failure("image", "get", "example.com/app:1")).toMatchObject({ code: "IMAGE_NOT_FOUND" });
    expect((await json("image-list", "image", "list")).images).toHaveLength(1);
    const { code, stdout } = await run("image", "delete", "example.com/app:2", "--yes");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^deleted sha256:.* no longer needed\nuntagged example\.com\/app:2\n$/);
    expect(await json("image-list", "image", "list")).toEqual({ images: [] });
  });
});

describe("failures have an exit code and keep nothing", () => {
  const codes = async (...line: readonly string[]) => {
    const { code, stderr } = await run(...line, "--quiet");
    return [code, /^ {2}code: (\w+)$/m.exec(stderr)?.[1]];
  };

  it("1: no such image, a damaged layer, a missing platform", async () => {
    expect(await codes("image", "get", "example.com/nothing:1")).toEqual([1, "IMAGE_NOT_FOUND"]);
    expect(await codes("image", "content", "example.com/nothing:1", "files")).toEqual([1, "IMAGE_NOT_FOUND"]);
    expect(await codes("image", "delete", "example.com/nothing:1")).toEqual([1, "IMAGE_NOT_FOUND"]);
    expect((await codes("analyze", `oci:${layout}:broken`))[0]).toBe(1);
    expect(await codes("analyze", `oci:${layout}:1`, "--platform", "linux/s390x")).toEqual([
      1,
      "IMAGE_PLATFORM_MISSING",
    ]);
    expect((await codes("analyze", `oci:${layout}/nowhere`))[0]).toBe(1);
    expect(await json("image-list", "image", "list")).toEqual({ images: [] });
  });

  it("1: a limit, where a layer has to be read", async () => {
    const empty = ["--data-dir", join(directory.path, "empty")];
    const line = ["analyze", `oci:${layout}:1`, "--limit", "layerEntriesMax=100", "--quiet", "-o", "json"];
    const { code, stdout, stderr } = await stowage([...line, ...empty]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    const found = documentOf("error", stderr).error;
    expect(found).toMatchObject({ code: "LIMIT_EXCEEDED", details: { limit: "layerEntriesMax" } });
    expect((await stowage(["image", "list", ...empty])).stdout.split("\n")).toHaveLength(2);
  });

  it("2: a source, a platform or a name that makes no sense", async () => {
    expect((await codes("analyze", "NOT A REFERENCE"))[0]).toBe(2);
    expect((await codes("analyze", `oci:${layout}:1`, "--platform", "///"))[0]).toBe(2);
    expect((await codes("analyze", `oci:${layout}:1`, "--name", "UPPER CASE"))[0]).toBe(2);
  });

  it("3: a registry or a database that does not answer", async () => {
    // Port 1 is reserved and refuses.
    expect(await codes("analyze", "127.0.0.1:1/a/b:1")).toEqual([3, "REGISTRY_UNREACHABLE"]);
    const { code, stderr } = await stowage(["image", "list", "--db-connect", "postgresql://me:hunter22@127.0.0.1:1/x"]);
    expect(code).toBe(3);
    expect(stderr).toContain("DB_UNREACHABLE");
    expect(stderr).not.toContain("hunter22");
  });
});

describe("an interrupt", () => {
  let server: Server;
  const sockets = new Set<Socket>();
  let source: string;

  beforeAll(async () => {
    // A registry that takes every request and never answers.
    server = createServer((socket) => sockets.add(socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    source = `127.0.0.1:${typeof address === "object" ? address?.port : ""}/a/b:1`;
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    server?.close();
  });

  it.each(["SIGINT", "SIGTERM"] as const)("%s cleans up and ends with 130", async (signal) => {
    const child = startStowage(["analyze", source, ...data]);
    const end = ended(child);
    await Promise.race([once(server, "connection"), end]);
    child.kill(signal);
    const { code, stdout, stderr } = await end;
    expect({ code, stdout }).toEqual({ code: 130, stdout: "" });
    expect(stderr).toMatch(new RegExp(`error: interrupted \\(what: ${signal}\\)\\n {2}code: INPUT_INTERRUPTED\\n$`));
    expect(await json("image-list", "image", "list")).toEqual({ images: [] });
  });
});
