import { on } from "node:events";
import { readSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";
import { catalogers } from "../catalogers/index.ts";
import { messageOf, StowageError, toStowageError } from "../errors/index.ts";
import { analyzeLayer } from "../layer/index.ts";
import {
  type BlobFile,
  chunkBytesMax,
  chunksAhead,
  type FromWorker,
  type LayerTask,
  type LayerTaskResult,
  readBytesTold,
  type ToWorker,
} from "./layer-task.ts";

/** Analyses one layer in this worker thread. */
export default async function runLayerTask(task: LayerTask): Promise<LayerTaskResult> {
  const { expected, fingerprint, limits, scratch, output, file, port } = task;
  try {
    let fileBytesRead = 0;
    let told = 0;
    const onRead = (bytes: number) => {
      fileBytesRead += bytes;
      if (fileBytesRead - told < readBytesTold) return;
      port.postMessage({ read: fileBytesRead - told } satisfies FromWorker);
      told = fileBytesRead;
    };
    const open = async () => (file ? readFile(file, onRead) : receive(port));
    const options = { catalogers, fingerprint, limits, scratch, output };
    return { analysis: await analyzeLayer(open, expected, options), fileBytesRead };
  } catch (error) {
    return { error: toStowageError(error).serialize() };
  } finally {
    port.close();
  }
}

/**
 * The blob's bytes from its file. This thread has nothing else to do while it waits for them, and decompression goes on in another: through the main
 * thread each chunk would wake three threads.
 */
async function* readFile(
  { description: source, descriptor, start, size }: BlobFile,
  onRead: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  for (let at = 0; at < size; ) {
    const chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytesMax, size - at));
    const read = readChunk(source, descriptor, chunk, start + at);
    at += read;
    onRead(read);
    yield read === chunk.length ? chunk : chunk.subarray(0, read);
  }
}

function readChunk(source: string, descriptor: number, chunk: Buffer, position: number): number {
  const unreadable = (reason: string, cause?: unknown) =>
    new StowageError("IMAGE_SOURCE_UNREADABLE", { source, reason }, cause === undefined ? {} : { cause });
  let read: number;
  try {
    read = readSync(descriptor, chunk, 0, chunk.length, position);
  } catch (error) {
    throw unreadable(messageOf(error), error);
  }
  if (read === 0) throw unreadable("it ended early");
  return read;
}

/** The blob's bytes as the main thread sends them, a few chunks ahead of what is asked for. */
async function* receive(port: MessagePort): AsyncGenerator<Buffer> {
  const send = (message: FromWorker) => port.postMessage(message);
  const messages = on(port, "message", { close: ["close"] });
  send("open");
  for (let ahead = 0; ahead < chunksAhead; ahead++) send("next");
  try {
    for await (const [message] of messages as AsyncIterable<[ToWorker]>) {
      if ("end" in message) return;
      if ("error" in message) throw StowageError.deserialize(message.error);
      yield Buffer.from(message.chunk);
      send("next");
    }
    throw new StowageError("INPUT_INTERRUPTED", { what: "the layer's bytes" });
  } finally {
    send("close");
  }
}
