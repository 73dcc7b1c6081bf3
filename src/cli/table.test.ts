import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import { Output } from "./output.ts";
import { type Column, writeFields, writeTable } from "./table.ts";

const columns: readonly Column[] = [
  { title: "NAME" },
  { title: "SIZE", alignment: "right" },
  { title: "LICENSES", sacrifice: 1 },
  { title: "LOCATION", sacrifice: 2 },
];
const rows = [
  ["musl", "1 kB", "MIT", "lib/apk/db/installed"],
  ["a-much-longer-name", "12 MB", "GPL-2.0-only", "lib/apk/db/installed"],
];

async function lines(terminalColumns: number | undefined, all: readonly (readonly string[])[], some = columns) {
  const stream = new FakeStream(terminalColumns === undefined ? undefined : { columns: terminalColumns, rows: 24 });
  await writeTable(new Output(stream), some, all, (text) => text);
  return stream.text.split("\n").slice(0, -1);
}

describe("writeTable", () => {
  it("aligns, without borders or trailing blanks", async () => {
    expect(await lines(undefined, rows)).toEqual([
      "NAME                 SIZE  LICENSES      LOCATION",
      "musl                 1 kB  MIT           lib/apk/db/installed",
      "a-much-longer-name  12 MB  GPL-2.0-only  lib/apk/db/installed",
    ]);
    expect(await lines(80, rows)).toEqual(await lines(undefined, rows));
  });

  it("cuts a cell that anybody may have made endless", async () => {
    const [, line = ""] = await lines(undefined, [["x".repeat(5_000_000), "1", "", ""]]);
    expect(line).toMatch(/^x{999}… +1$/);
  });

  it("leaves out columns on a narrow terminal, the least important first", async () => {
    expect((await lines(50, rows))[0]).toBe("NAME                 SIZE  LICENSES");
    expect((await lines(30, rows))[0]).toBe("NAME                 SIZE");
  });

  it("wraps what still does not fit, and cuts nothing", async () => {
    const wrapped = await lines(24, rows);
    expect(Math.max(...wrapped.map((line) => line.length))).toBeLessThanOrEqual(24);
    expect(wrapped.map((line) => line.slice(0, 17).trim()).join("")).toContain("a-much-longer-name");
  });

  it("gives a program one line for each row, however long, and aligns wide characters", async () => {
    const cell = fc.stringMatching(/^[a-z漢é .:/-]{1,300}$/).map((text) => text.trim() || "-");
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(cell, cell), { maxLength: 20 }), async (cells) => {
        const out = await lines(undefined, cells, columns.slice(0, 2));
        expect(out).toHaveLength(cells.length + 1);
        for (const [index, [name, size]] of cells.entries()) {
          expect(out[index + 1]?.startsWith(name)).toBe(true);
          expect(out[index + 1]?.endsWith(size)).toBe(true);
        }
      }),
      { numRuns: 50 },
    );
  });

  it("writes long lists in batches with one header", async () => {
    const out = await lines(
      undefined,
      Array.from({ length: 2500 }, (_, index) => [`n${index}`, "1", "", ""]),
    );
    expect(out).toHaveLength(2501);
    expect(out.filter((line) => line.startsWith("NAME"))).toHaveLength(1);
    expect(out[2500]).toMatch(/^n2499 +1$/);
  });
});

it("writeFields aligns values and leaves out what is not known", async () => {
  const stream = new FakeStream();
  await writeFields(
    new Output(stream),
    [
      ["digest", "sha256:1"],
      ["tag", undefined],
      ["image id", "x"],
    ],
    (text) => text,
  );
  expect(stream.text).toBe("digest    sha256:1\nimage id  x\n");
});
