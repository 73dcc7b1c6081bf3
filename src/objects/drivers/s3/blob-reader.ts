import type { Readable } from "node:stream";
import { GetObjectCommand } from "@aws-sdk/client-s3";
import { messageOf, StowageError } from "../../../errors/index.ts";
import { type Call, throwIfAborted } from "../../../runtime/index.ts";
import { type ByteRange, type PhysicalKey, WholeBody } from "../../driver.ts";
import type { Connection } from "./connection.ts";
import { refusalOf } from "./failures.ts";
import { contentLength } from "./http.ts";
import { objectOf, requestFor } from "./requests.ts";
import { type Extract, ResponseBody } from "./response-body.ts";

/** The bytes of a blob, or of a range of it; a short answer is there as a whole. */
export async function readBlob(
  connection: Connection,
  key: PhysicalKey,
  range: ByteRange | undefined,
  call: Call,
): Promise<Readable> {
  const { bucket, prefix } = connection.configuration;
  const object = objectOf(prefix, key);
  const wanted = range === undefined ? undefined : `bytes=${range.first}-${range.last}`;
  const blob = { method: "GET", key, ...(wanted === undefined ? {} : { headers: { range: wanted } }) } as const;
  const command = () =>
    new GetObjectCommand({ Bucket: bucket, Key: object, ...(wanted === undefined ? {} : { Range: wanted }) });
  const failure = (error: unknown) =>
    new StowageError("BACKEND_FAILED", { driver: "s3", operation: "get", key, reason: messageOf(error) });
  const answer = await connection
    .exchange(blob, command, requestFor("get", object, key), call)
    .catch((error: unknown) => {
      // Nothing of the object lies in the range.
      if (refusalOf(error)?.status === 416) return undefined;
      throw error;
    });
  if (answer === undefined) return new WholeBody(Buffer.alloc(0));
  const { headers, body } = answer;
  try {
    const extract = extractOf(contentLength(headers), String(headers["content-range"] ?? ""), range);
    if (Buffer.isBuffer(body)) return new WholeBody(cut(body, extract));
    if (extract.takeBytes > 0 || extract.totalBytes === 0) {
      return new ResponseBody(body, extract, failure, { signal: call.signal, error: () => interruptionOf(call) });
    }
    body.destroy();
    return new WholeBody(Buffer.alloc(0));
  } catch (error) {
    if (!Buffer.isBuffer(body)) body.destroy();
    throw failure(error);
  }
}

function interruptionOf(call: Call): unknown {
  try {
    throwIfAborted(call);
    return undefined;
  } catch (error) {
    return error;
  }
}

function cut(bytes: Buffer, { skipBytes, takeBytes }: Extract): Buffer {
  return skipBytes === 0 && takeBytes === bytes.length ? bytes : bytes.subarray(skipBytes, skipBytes + takeBytes);
}

/**
 * Which bytes of an answer are those of the range. What the server says that it sends counts: some send more than they were asked for.
 * @throws Error when the answer can't be the object's bytes
 */
function extractOf(length: number | undefined, contentRange: string, range: ByteRange | undefined): Extract {
  if (length === undefined) throw new Error("the answer does not say how long it is");
  const sent = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(contentRange);
  const first = Number(sent?.[1] ?? 0);
  const objectBytes = Number(sent?.[3] ?? length);
  const wantedFirst = range?.first ?? 0;
  const wantedEnd = Math.min((range?.last ?? objectBytes - 1) + 1, objectBytes);
  const takeBytes = Math.max(0, wantedEnd - wantedFirst);
  const skipBytes = wantedFirst - first;
  if (takeBytes > 0 && (skipBytes < 0 || skipBytes + takeBytes > length)) {
    throw new Error(`the answer has other bytes than those asked for (${contentRange || `${length} bytes`})`);
  }
  return { skipBytes: Math.max(0, skipBytes), takeBytes, totalBytes: length };
}
