import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { expect, test } from "vitest";
import { MemoryDriver } from "../../test/fault/memory-driver.ts";
import { defaultCompression } from "../config/index.ts";
import { createCall } from "../runtime/index.ts";
import { formatHeader } from "./envelope.ts";
import { readStoredThrough, readThrough } from "./location-reader.ts";
import { createPhysicalKey } from "./physical-key.ts";
import type { Located } from "./rows/locations.ts";
import { payloadOf, payloadToKeep, verifiedBytes, verifiedContent, WrongBytes } from "./verified-body.ts";
import { rewrittenBody, writtenBytes } from "./written-body.ts";

const call = createCall();
const writtenFor = { account: "a", bucket: "b", key: 'k"\\é' };

async function stored(content: Buffer, isCompressed: boolean, installation = "i") {
  const compression = { ...defaultCompression, enabled: true, minSizeKbytes: 0 };
  const header = { installation, location: 7, ...writtenFor };
  const { source, written } = await writtenBytes(content, !isCompressed, compression, (codec) =>
    formatHeader({ ...header, codec }),
  );
  const driver = new MemoryDriver();
  const physicalKey = createPhysicalKey();
  driver.blobs.set(physicalKey, source.bytes);
  const at: Located = { ...written(), locationId: 7, writtenFor, backendId: 1, physicalKey, damage: undefined };
  return { bytes: source.bytes, driver, at };
}

/** All ways to read stored bytes, for readers, scrub and copies. */
const ways: Readonly<Record<string, (it: Awaited<ReturnType<typeof stored>>) => Promise<unknown>>> = {
  "as a whole": ({ bytes, at }) => verifiedBytes(bytes, at),
  "their payload": async ({ bytes, at }) => payloadOf(bytes, at),
  "their payload for a copy": async ({ bytes, at }) => payloadToKeep(bytes, at),
  "as a stream": ({ bytes, at }) => buffer(verifiedContent(Readable.from([bytes]), at, async (wrong) => wrong)),
  "byte by byte": ({ bytes, at }) => {
    const pieces = Array.from(bytes.subarray(0, 500), (byte) => Buffer.from([byte]));
    return buffer(verifiedContent(Readable.from([...pieces, bytes.subarray(500)]), at, async (wrong) => wrong));
  },
  "as a stream for a copy": async ({ bytes, at }) => {
    const { source } = rewrittenBody(async () => Readable.from([bytes]), at, Buffer.from("another"), 0);
    return await buffer(await source.open(call));
  },
  "read through": async ({ driver, at }) => thrown(await readThrough(driver, at, call)),
  "read through without decoding": async ({ driver, at }) => thrown(await readStoredThrough(driver, at, call)),
};

function thrown(wrong: WrongBytes | undefined): void {
  if (wrong !== undefined) throw wrong;
}

const contents = [Buffer.from("short"), Buffer.alloc(2 * 1024 * 1024, "long ")];
const cases = Object.keys(ways).flatMap((way) =>
  contents.flatMap((content) => [true, false].map((isCompressed) => [way, content.length, isCompressed] as const)),
);

test.each(cases)("%s: %i bytes, compressed: %s", async (way, length, isCompressed) => {
  const content = contents.find((each) => each.length === length) as Buffer;
  const it = await stored(content, isCompressed);
  const read = (lies: Partial<Located>) => (ways[way] as (typeof ways)[string])({ ...it, at: { ...it.at, ...lies } });
  await read({});
  const lies: readonly Partial<Located>[] = [
    { locationId: 8 },
    { writtenFor: { ...writtenFor, account: "other" } },
    { writtenFor: { ...writtenFor, bucket: "other" } },
    { writtenFor: { ...writtenFor, key: "other" } },
    { writtenFor: { ...writtenFor, key: `${writtenFor.key}x` } },
    { contentBytes: it.at.contentBytes + 1 },
  ];
  for (const lie of lies) await expect(read(lie)).rejects.toThrow(WrongBytes);
});

test("who wrote them does not matter, and what says so may stand in another order, or beside more", async () => {
  const { bytes, at } = await stored(Buffer.from("x"), false, "another, with a quote\" and 'more'");
  expect((await verifiedBytes(bytes, at)).toString()).toBe("x");
  const header = JSON.stringify({ more: 1, codec: "none", location: 7, ...writtenFor });
  const prefix = Buffer.from(bytes.subarray(0, 12));
  const rest = bytes.subarray(12 + prefix.readUInt32LE(8));
  prefix.writeUInt32LE(Buffer.byteLength(header), 8);
  const other = Buffer.concat([prefix, Buffer.from(header), rest]);
  expect(payloadToKeep(other, { ...at, storedBytes: other.length }).toString()).toBe("x");
});

test("what a wrong header says is told, in bounds and as the database can take it", async () => {
  const { bytes, at } = await stored(Buffer.from("x"), false);
  const prefix = Buffer.from(bytes.subarray(0, 12));
  const rest = bytes.subarray(12 + prefix.readUInt32LE(8));
  prefix.writeUInt32LE(5000, 8);
  const other = Buffer.concat([prefix, Buffer.alloc(5000, "\0\xff", "latin1"), rest]);
  const { message } = await failureIn(async () => payloadToKeep(other, { ...at, storedBytes: other.length }));
  expect(message.length).toBeLessThan(500);
  expect(message).not.toContain("\0");
});

async function failureIn(work: () => Promise<unknown>): Promise<Error> {
  return await work().then(
    () => expect.fail("it was taken"),
    (error: Error) => error,
  );
}
