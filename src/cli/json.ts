import type { Output } from "./output.ts";
import { printableJson } from "./printable.ts";

/**
 * Writes one JSON document. Values that are async iterables, at any depth, become arrays whose elements are written as they come, so a document may be
 * larger than memory. An error on the way leaves the document unfinished, which no JSON parser takes for a whole one.
 */
export async function writeJson(output: Output, document: object): Promise<void> {
  await writeValue(output, document, "\n");
  await output.write("\n");
  await output.flush();
}

/** `separator` is a line break near the root, where it keeps one element on each line, and nothing deeper down. */
async function writeValue(output: Output, value: unknown, separator: string): Promise<void> {
  if (isAsyncIterable(value)) {
    await output.write("[");
    let isFirst = true;
    for await (const element of value) {
      await output.write(isFirst ? separator : `,${separator}`);
      await writeValue(output, element, "");
      isFirst = false;
    }
    await output.write(isFirst ? "]" : `${separator}]`);
  } else if (isObject(value) && (separator !== "" || Object.values(value).some(isAsyncIterable))) {
    await output.write("{");
    let isFirst = true;
    for (const [key, field] of Object.entries(value)) {
      if (field === undefined) continue;
      await output.write(`${isFirst ? "" : ","}${separator}${encode(key)}:${separator === "" ? "" : " "}`);
      await (isAsyncIterable(field) ? writeValue(output, field, separator) : writeValue(output, field, ""));
      isFirst = false;
    }
    await output.write(isFirst ? "}" : `${separator}}`);
  } else {
    await output.write(encode(value));
  }
}

function encode(value: unknown): string {
  return printableJson(JSON.stringify(value));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
