import { pipeline, type Readable } from "node:stream";
import type { Call } from "../runtime/index.ts";
import type { ObjectDriver } from "./driver.ts";
import type { Located } from "./rows/locations.ts";
import { collect, shortBytesMax } from "./short-bytes.ts";
import { Unwrap, verifiedBytes, verifiedContent, WrongBytes } from "./verified-body.ts";

/**
 * The content of a location that is short.
 * @throws WrongBytes
 */
export async function readShort(driver: ObjectDriver, at: Located, call: Call): Promise<Buffer> {
  return await verifiedBytes(await readShortStored(driver, at, call), at);
}

/** Its stored bytes as they are. */
export async function readShortStored(driver: ObjectDriver, at: Located, call: Call): Promise<Buffer> {
  return await collect(await driver.get(at.physicalKey, undefined, call), at.storedBytes);
}

/** Reads a location through; what is wrong with its bytes, if something is. */
export async function readThrough(driver: ObjectDriver, at: Located, call: Call): Promise<WrongBytes | undefined> {
  return await wrongIn(async () => {
    if (at.contentBytes <= shortBytesMax) await readShort(driver, at, call);
    else await drain(verifiedContent(await driver.get(at.physicalKey, undefined, call), at, async (wrong) => wrong));
  });
}

/** The same of its stored bytes and their envelope only: the content is not decoded. */
export async function readStoredThrough(
  driver: ObjectDriver,
  at: Located,
  call: Call,
): Promise<WrongBytes | undefined> {
  return await wrongIn(async () => {
    await drain(pipeline(await driver.get(at.physicalKey, undefined, call), new Unwrap(at), () => {}));
  });
}

async function wrongIn(read: () => Promise<void>): Promise<WrongBytes | undefined> {
  try {
    await read();
    return undefined;
  } catch (error) {
    if (error instanceof WrongBytes) return error;
    throw error;
  }
}

async function drain(stream: Readable): Promise<void> {
  for await (const _ of stream) {
    // only read
  }
}
