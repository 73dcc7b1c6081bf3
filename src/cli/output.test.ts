import { describe, expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import { Secret } from "../config/index.ts";
import { isCode } from "../errors/index.ts";
import { writeJson } from "./json.ts";
import { Output, OutputClosed } from "./output.ts";

describe("Output", () => {
  it("masks secrets, also where one write ends and the next begins a batch", async () => {
    const secret = new Secret("correct-horse");
    secret.reveal();
    const stream = new FakeStream();
    const output = new Output(stream);
    await output.write("x".repeat(64 * 1024 - 5));
    await output.write("a correct-horse b\n");
    await output.write("postgresql://me:hunter22@host/db\n");
    await output.flush();
    expect(stream.text.slice(64 * 1024 - 5)).toBe("a ******** b\npostgresql://me:********@host/db\n");
  });

  it("never has more waiting than one batch", async () => {
    const stream = new FakeStream();
    const output = new Output(stream);
    for (let index = 0; index < 20_000; index++) await output.write(`${String(index).padStart(30)}\n`);
    await output.flush();
    expect(stream.text.length).toBe(20_000 * 31);
    expect(stream.mostWaiting).toBeLessThanOrEqual(64 * 1024 + 31);
  });

  it("says that the reader has gone", async () => {
    const stream = new FakeStream();
    const output = new Output(stream);
    stream.failure = "EPIPE";
    await output.write("text");
    await expect(output.flush()).rejects.toBeInstanceOf(OutputClosed);
  });

  it("reports a full disk", async () => {
    const stream = new FakeStream();
    const output = new Output(stream);
    stream.failure = "ENOSPC";
    await output.write("text");
    await expect(output.flush()).rejects.toSatisfy((error) => isCode(error, "INPUT_OUTPUT_FAILED"));
  });
});

describe("writeJson", () => {
  async function* streamOf(...items: readonly unknown[]) {
    yield* items;
  }

  async function textOf(document: object): Promise<string> {
    const stream = new FakeStream();
    await writeJson(new Output(stream), document);
    return stream.text;
  }

  it("streams arrays at any depth, one element of the outer one on each line", async () => {
    const text = await textOf({
      name: "a\u009bb",
      left: undefined,
      none: streamOf(),
      items: streamOf({ id: 1, files: streamOf("x", "y"), gone: undefined }, { id: 2, at: new Date(0) }, 3, null),
    });
    expect(text).toBe(
      `{\n"name": "a\\u009bb",\n"none": [],\n"items": [\n{"id":1,"files":["x","y"]},\n{"id":2,"at":"1970-01-01T00:00:00.000Z"},\n3,\nnull\n]\n}\n`,
    );
    expect(JSON.parse(text)).toEqual({
      name: "a\u009bb",
      none: [],
      items: [{ id: 1, files: ["x", "y"] }, { id: 2, at: "1970-01-01T00:00:00.000Z" }, 3, null],
    });
  });

  it("leaves a document that no parser accepts when an element can't be had", async () => {
    const stream = new FakeStream();
    const output = new Output(stream);
    const items = (async function* () {
      yield 1;
      throw new Error("broken");
    })();
    await expect(writeJson(output, { items })).rejects.toThrow("broken");
    await output.flush();
    expect(() => JSON.parse(stream.text)).toThrow(SyntaxError);
  });

  it("asks for no element before the one before it is written", async () => {
    const stream = new FakeStream();
    let asked = 0;
    const items = (async function* () {
      for (; asked < 5000; asked++) {
        // At most one batch and what is being written lies between what was asked for and what has arrived.
        expect(asked * 102 - stream.text.length).toBeLessThan(2 * 64 * 1024);
        yield "x".repeat(98);
      }
    })();
    await writeJson(new Output(stream), { items });
    expect((JSON.parse(stream.text) as { items: string[] }).items).toHaveLength(5000);
  });
});
