import { expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import { writeRemoval } from "./cache-removal.ts";
import type { Context } from "./context.ts";
import { Output } from "./output.ts";

it.each([
  [{ entries: 0, bytes: 0, entriesInUse: 0 }, "nothing was dropped\n"],
  [{ entries: 1, bytes: 999, entriesInUse: 0 }, "dropped 1 layer, 999 B\n"],
  [
    { entries: 1234, bytes: 5_000_000_000, entriesInUse: 1 },
    "dropped 1,234 layers, 5.00 GB\n1 layer stays: an analysis reads it\n",
  ],
  [{ entries: 0, bytes: 0, entriesInUse: 2 }, "nothing was dropped\n2 layers stay: an analysis reads them\n"],
])("%o", async (removal, text) => {
  const stream = new FakeStream();
  await writeRemoval({ output: new Output(stream) } as Context, removal);
  expect(stream.text).toBe(text);
});
