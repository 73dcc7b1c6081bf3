import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { StowageError } from "../errors/index.ts";
import { createCall } from "../runtime/index.ts";
import { parseSourceList, readSourceList } from "./source-list.ts";

const parse = (text: string | Buffer, max = 100) => parseSourceList(Buffer.from(text), "list.txt", max);

describe("parseSourceList", () => {
  it.each([
    ["", []],
    ["alpine:3.20", ["alpine:3.20"]],
    ["a\nb\n", ["a", "b"]],
    ["a\r\nb\r\n", ["a", "b"]],
    ["a\rb", ["a", "b"]],
    ["\ufeffa\n", ["a"]],
    ["# all of ours\n\n \t \n  #not this\na\n", ["a"]],
    ["  oci:./two words:1 \t\n", ["oci:./two words:1"]],
    ["oci:./x#y\n", ["oci:./x#y"]],
    ["a\na\n", ["a", "a"]],
    ["oci:./Größe\n", ["oci:./Größe"]],
  ])("%j", (text, sources) => {
    expect(parse(text)).toEqual(sources);
  });

  it.each([
    ["not UTF-8", Buffer.from("a\nb\xe9\n", "latin1"), "it is not UTF-8"],
    ["NUL", "a\n\nb\0c\n", "line 3 holds a NUL"],
    ["a long line", `a\n${"b".repeat(8193)}`, "line 2 is longer than 8192 characters"],
  ])("refuses %s", (_, text, reason) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: "INPUT_INVALID", details: { what: "--from-file", value: "list.txt", reason } }),
    );
  });

  it("counts sources, not lines", () => {
    const text = "#\n\n".repeat(10);
    expect(parse(`${text}a\n${text}b`, 2)).toEqual(["a", "b"]);
    expect(() => parse(`${text}a\n${text}b`, 1)).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED", details: { limit: "sourcesMax", max: 1, where: "list.txt" } }),
    );
  });
});

describe("readSourceList", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "stowage-list-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  const nothing = new PassThrough();

  it("reads a file, and standard input for -", async () => {
    const file = join(directory, "list");
    await writeFile(file, "a\nb\n");
    expect(await readSourceList(file, nothing, 9, createCall())).toEqual(["a", "b"]);
    const bytes = Buffer.from("ä\nb");
    // Cut in the middle of a character.
    const stdin = Readable.from([bytes.subarray(0, 1), bytes.subarray(1)]);
    expect(await readSourceList("-", stdin, 9, createCall())).toEqual(["ä", "b"]);
  });

  it("refuses what it can't read", async () => {
    for (const file of [join(directory, "missing"), directory]) {
      await expect(readSourceList(file, nothing, 9, createCall())).rejects.toMatchObject({
        code: "INPUT_INVALID",
        details: { value: file, reason: expect.stringMatching(/^it can't be read: /) },
      });
    }
  });

  it("reads no more than its limit of an endless list", async () => {
    let given = 0;
    const endless = Readable.from(
      (function* () {
        for (;;) {
          given++;
          yield Buffer.alloc(2 ** 20, "#");
        }
      })(),
    );
    await expect(readSourceList("-", endless, 9, createCall())).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      details: { limit: "sourceListBytesMax", where: "standard input" },
    });
    expect(given).toBeLessThan(30);
  });

  it("stops waiting when the call is aborted", async () => {
    const abort = new AbortController();
    const reading = readSourceList("-", new PassThrough(), 9, createCall({ signal: abort.signal }));
    abort.abort(new StowageError("INPUT_INTERRUPTED", { what: "SIGINT" }));
    await expect(reading).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
  });
});
