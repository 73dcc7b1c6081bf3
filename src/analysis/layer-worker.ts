import { on } from "node:events";
import type { MessagePort } from "node:worker_threads";
import { catalogers } from "../catalogers/index.ts";
import { StowageError, toStowageError } from "../errors/index.ts";
import { analyzeLayer } from "../layer/index.ts";
import { chunksAhead, type FromWorker, type LayerTask, type LayerTaskResult, type ToWorker } from "./layer-task.ts";

/** Where a worker finds this module, in the sources and compiled alike. */
export const layerWorkerUrl = import.meta.url;

/** Analyses one layer in this worker thread. */
export default async function runLayerTask(task: LayerTask): Promise<LayerTaskResult> {
  const { expected, fingerprint, limits, scratch, output, port } = task;
  try {
    const open = async () => receive(port);
    return { analysis: await analyzeLayer(open, expected, { catalogers, fingerprint, limits, scratch, output }) };
  } catch (error) {
    return { error: toStowageError(error).serialize() };
  } finally {
    port.close();
  }
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
