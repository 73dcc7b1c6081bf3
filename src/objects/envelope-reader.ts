import { z } from "zod";
import type { Call } from "../runtime/index.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { headerBytesMax, headerLength, prefixBytes } from "./envelope.ts";
import { collect } from "./short-bytes.ts";

const headerSchema = z.object({
  installation: z.string(),
  location: z.number(),
  account: z.string(),
  bucket: z.string(),
  key: z.string(),
  codec: z.string(),
});

/** What stored bytes say of themselves, without reading them all; `undefined` when they have no envelope. */
export async function readHeader(
  driver: ObjectDriver,
  key: PhysicalKey,
  call: Call,
): Promise<z.infer<typeof headerSchema> | undefined> {
  const most = prefixBytes + headerBytesMax;
  const begin = await collect(await driver.get(key, { first: 0, last: most - 1 }, call), most);
  const length = headerLength(begin);
  if (length === undefined || begin.length < prefixBytes + length) return undefined;
  try {
    return headerSchema.parse(JSON.parse(begin.subarray(prefixBytes, prefixBytes + length).toString()));
  } catch {
    return undefined;
  }
}
