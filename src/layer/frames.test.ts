import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { encodeFrame, readFrames } from "./frames.ts";

const magic = "STOWTEST";
const headBytes = 13;

/** Half of it can be compressed away; the same each time. */
function contentOf(bytes: number): Buffer {
  const content = Buffer.alloc(bytes);
  for (let at = 0, state = 1; at < bytes; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    content[at] = (state >>> 16) % 16;
  }
  return content;
}

describe("frames", () => {
  it.each([0, 1, 16_384, 16_385, 131_072, 131_300, 1_048_700, 2 * 1024 * 1024, 2 * 1024 * 1024 + 1, 3_000_043])(
    "of %i bytes give them back, and are the same each time",
    async (bytes) => {
      const content = contentOf(bytes);
      const frame = encodeFrame("entries", content);
      expect(frame.length).toBeLessThan(headBytes + bytes * 0.6 + 64);
      expect(encodeFrame("entries", Buffer.from(content)).equals(frame)).toBe(true);
      expect((await read([frame])).map((each) => each.equals(content))).toEqual([true]);
    },
  );

  it("of what can't be compressed give it back", async () => {
    const content = randomBytes(100_000);
    expect(await read([encodeFrame("entries", content)])).toEqual([content]);
  });

  it("have their memory for themselves", () => {
    for (const bytes of [10, 20_000, 200_000]) {
      const frame = encodeFrame("entries", contentOf(bytes));
      expect(frame.buffer.byteLength).toBe(frame.length);
    }
  });

  it("free their content when the next is asked for", async () => {
    const body = Buffer.concat([
      Buffer.from(magic),
      encodeFrame("entries", contentOf(200_000)),
      encodeFrame("end", none),
    ]);
    const frames = readFrames(piecesOf(body), magic, "test");
    const { value } = await frames.next();
    const content = value?.content;
    expect(content?.length).toBe(200_000);
    await frames.next();
    expect(content?.length).toBe(0);
  });

  it("are read from pieces that are used again", async () => {
    const contents = [contentOf(300_000), contentOf(10), contentOf(2_000_000), contentOf(50_000)];
    const body = Buffer.concat([
      Buffer.from(magic),
      ...contents.map((content) => encodeFrame("entries", content)),
      encodeFrame("end", none),
    ]);
    async function* reused(): AsyncGenerator<Buffer> {
      const piece = Buffer.alloc(65_536);
      for (let at = 0; at < body.length; at += piece.length) yield piece.subarray(0, body.copy(piece, 0, at));
    }
    const found: boolean[] = [];
    for await (const { content } of readFrames(reused(), magic, "test")) {
      found.push(content.equals(contents[found.length] as Buffer));
    }
    expect(found).toEqual([true, true, true, true]);
  });
});

const none = Buffer.alloc(0);

async function* piecesOf(body: Buffer): AsyncGenerator<Buffer> {
  yield body;
}

async function read(frames: readonly Buffer[]): Promise<Buffer[]> {
  const body = Buffer.concat([Buffer.from(magic), ...frames, encodeFrame("end", none)]);
  const contents: Buffer[] = [];
  for await (const { content } of readFrames(piecesOf(body), magic, "test")) contents.push(Buffer.from(content));
  return contents;
}
