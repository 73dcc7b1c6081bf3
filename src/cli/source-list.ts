import { createReadStream } from "node:fs";
import { addAbortSignal, type Readable } from "node:stream";
import { messageOf, StowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";

const listBytesMax = 8 * 2 ** 20;
/** The longest path that the system takes, and a reference in it. */
const lineLengthMax = 8 * 1024;

/**
 * Reads the sources that a file names, or standard input where `file` is `-`: see {@link parseSourceList}.
 * @param sourcesMax how many there may be
 * @throws StowageError `INPUT_INVALID`, `LIMIT_EXCEEDED`
 */
export async function readSourceList(
  file: string,
  stdin: NodeJS.ReadableStream,
  sourcesMax: number,
  call: Call,
): Promise<readonly string[]> {
  const where = file === "-" ? "standard input" : file;
  const stream = file === "-" ? (stdin as Readable) : createReadStream(file);
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of addAbortSignal(call.signal, stream)) {
      const buffer = Buffer.from(chunk as Buffer | string);
      bytes += buffer.length;
      if (bytes > listBytesMax) {
        throw new StowageError("LIMIT_EXCEEDED", { limit: "sourceListBytesMax", max: listBytesMax, where });
      }
      chunks.push(buffer);
    }
  } catch (error) {
    throwIfAborted(call);
    if (error instanceof StowageError) throw error;
    throw invalid(where, `it can't be read: ${messageOf(error)}`, error);
  }
  return parseSourceList(Buffer.concat(chunks), where, sourcesMax);
}

/**
 * One source on each line. Blanks around it, empty lines and lines that begin with `#` mean nothing; lines end as on any system.
 * @throws StowageError `INPUT_INVALID`, `LIMIT_EXCEEDED`
 */
export function parseSourceList(bytes: Buffer, where: string, sourcesMax: number): readonly string[] {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw invalid(where, "it is not UTF-8", error);
  }
  const sources: string[] = [];
  for (const [index, raw] of text.split(/\r\n|\n|\r/).entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line.length > lineLengthMax)
      throw invalid(where, `line ${index + 1} is longer than ${lineLengthMax} characters`);
    if (line.includes("\0")) throw invalid(where, `line ${index + 1} holds a NUL`);
    if (sources.length >= sourcesMax) {
      const hint = "analyse them in parts, or raise it: --limit sourcesMax=NUMBER";
      throw new StowageError("LIMIT_EXCEEDED", { limit: "sourcesMax", max: sourcesMax, where }, { hint });
    }
    sources.push(line);
  }
  return sources;
}

function invalid(where: string, reason: string, cause?: unknown): StowageError {
  const hint = "a list has one source on each line";
  return new StowageError(
    "INPUT_INVALID",
    { what: "--from-file", value: where.slice(0, 300), reason },
    { hint, cause },
  );
}
