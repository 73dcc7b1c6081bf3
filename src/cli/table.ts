import { getBorderCharacters, table } from "table";
import type { Output } from "./output.ts";

export interface Column {
  readonly title: string;
  readonly alignment?: "left" | "right";
}

/** Rows laid out together: all rows of a usual list, while an endless one needs no endless memory. */
const ROWS_PER_BATCH = 1000;
const GAP = 2;
/** A column is never squeezed below this. */
const COLUMN_WIDTH_MIN = 12;

/**
 * Writes a table without borders. On a terminal, cells that don't fit are wrapped, never cut; for a program (no terminal) each row is one line.
 * Cells must be printable.
 */
export async function writeTable(
  output: Output,
  columns: readonly Column[],
  rows: AsyncIterable<readonly string[]> | Iterable<readonly string[]>,
  emphasize: (text: string) => string,
): Promise<void> {
  let batch: (readonly string[])[] = [columns.map(({ title }) => title)];
  let isFirst = true;
  const writeBatch = async () => {
    if (batch.length === 0) return;
    const widths = fitWidths(batch, output.columns);
    const [header, ...rest] = batch;
    await output.write(layOut(isFirst && header ? [header.map(emphasize), ...rest] : batch, columns, widths));
    isFirst = false;
    batch = [];
  };
  for await (const row of rows) {
    batch.push(row);
    if (batch.length >= ROWS_PER_BATCH) await writeBatch();
  }
  await writeBatch();
  await output.flush();
}

/** Writes names and values, one pair on each line, values aligned; pairs without a value are left out. */
export async function writeFields(
  output: Output,
  fields: readonly (readonly [name: string, value: string | undefined])[],
  emphasize: (text: string) => string,
): Promise<void> {
  const width = Math.max(...fields.map(([name]) => name.length)) + GAP;
  for (const [name, value] of fields) {
    if (value !== undefined) await output.write(`${emphasize(name.padEnd(width))}${value}\n`);
  }
  await output.flush();
}

function layOut(
  rows: readonly (readonly string[])[],
  columns: readonly Column[],
  widths: readonly number[] | undefined,
): string {
  const text = table(rows as string[][], {
    border: getBorderCharacters("void"),
    drawHorizontalLine: () => false,
    columnDefault: { paddingLeft: 0, paddingRight: GAP },
    columns: columns.map(({ alignment = "left" }, index) => {
      const width = widths?.[index];
      return { alignment, ...(width === undefined ? {} : { width }) };
    }),
  });
  return text.replace(/[ ]+$/gm, "");
}

/** Widths that fit into `available` columns, the widest columns squeezed first; `undefined` where nothing has to be squeezed. */
function fitWidths(
  rows: readonly (readonly string[])[],
  available: number | undefined,
): readonly number[] | undefined {
  if (available === undefined) return undefined;
  const widths = (rows[0] ?? []).map((_, index) => Math.max(1, ...rows.map((row) => displayWidth(row[index] ?? ""))));
  let excess = widths.reduce((sum, width) => sum + width + GAP, -GAP) - available;
  if (excess <= 0) return undefined;
  while (excess > 0) {
    const widest = widths.indexOf(Math.max(...widths));
    const width = widths[widest] ?? 0;
    if (width <= COLUMN_WIDTH_MIN) break;
    widths[widest] = width - 1;
    excess--;
  }
  return widths;
}

const WIDE = /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}\uff01-\uff60]/u;

/** Terminal columns that `text` needs, near enough to choose widths by. */
function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) width += WIDE.test(character) ? 2 : 1;
  return width;
}
