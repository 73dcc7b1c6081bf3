import type { Output } from "./output.ts";

export interface Column {
  readonly title: string;
  readonly alignment?: "left" | "right";
  /** On a terminal too narrow for all columns, those with the highest number are left out first; a column without one stays. */
  readonly sacrifice?: number;
}

/** Rows laid out together: all rows of a usual list, while an endless one needs no endless memory. */
const CELL_LENGTH_MAX = 1000;
const ROWS_PER_BATCH = 1000;
const GAP = 2;
/** A column is never squeezed below this. */
const COLUMN_WIDTH_MIN = 12;

/**
 * Writes a table without borders. On a terminal, cells that don't fit are wrapped, never cut; for a program (no terminal) each row is one line.
 * Cells must be printable; a line break in one makes a row of several lines.
 */
export async function writeTable(
  output: Output,
  allColumns: readonly Column[],
  rows: AsyncIterable<readonly string[]> | Iterable<readonly string[]>,
  emphasize: (text: string) => string,
): Promise<void> {
  let batch: (readonly string[])[] = [allColumns.map(({ title }) => title)];
  let shown: readonly number[] | undefined;
  const writeBatch = async () => {
    if (batch.length === 0) return;
    const isFirst = shown === undefined;
    // What the first batch leaves out stays out.
    shown ??= chooseColumns(batch, allColumns, output.columns);
    const chosen = shown;
    const columns = chosen.flatMap((index) => allColumns[index] ?? []);
    const rows = batch.map((row) => chosen.map((index) => bounded(row[index] ?? "")));
    const widths = fitWidths(rows, output.columns);
    const [header, ...rest] = rows;
    await output.write(await layOut(isFirst && header ? [header.map(emphasize), ...rest] : rows, columns, widths));
    batch = [];
  };
  for await (const row of rows) {
    batch.push(row);
    if (batch.length >= ROWS_PER_BATCH) await writeBatch();
  }
  await writeBatch();
  await output.flush();
}

/** Laying out costs time that grows with the square of a cell's length, and what stands in one can be anybody's. JSON has all of it. */
function bounded(text: string): string {
  return text.length <= CELL_LENGTH_MAX ? text : `${text.slice(0, CELL_LENGTH_MAX - 1)}…`;
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

async function layOut(
  rows: readonly (readonly string[])[],
  columns: readonly Column[],
  widths: readonly number[] | undefined,
): Promise<string> {
  // Loaded where there is a table: what prints fields or JSON does without.
  const { getBorderCharacters, table } = await import("table");
  const text = table(rows as string[][], {
    border: getBorderCharacters("void"),
    drawHorizontalLine: () => false,
    columnDefault: { paddingLeft: 0, paddingRight: GAP, wrapWord: true },
    columns: columns.map(({ alignment = "left" }, index) => {
      const width = widths?.[index];
      return { alignment, ...(width === undefined ? {} : { width }) };
    }),
  });
  return text.replace(/[ ]+$/gm, "");
}

/** Indices of the columns to show. */
function chooseColumns(
  rows: readonly (readonly string[])[],
  columns: readonly Column[],
  available: number | undefined,
): readonly number[] {
  const chosen = [...columns.keys()];
  if (available === undefined) return chosen;
  const widths = naturalWidths(rows);
  const order = chosen
    .filter((index) => columns[index]?.sacrifice !== undefined)
    .sort((one, other) => (columns[other]?.sacrifice ?? 0) - (columns[one]?.sacrifice ?? 0));
  for (const index of order) {
    const total = chosen.reduce((sum, each) => sum + (widths[each] ?? 0) + GAP, -GAP);
    if (total <= available) break;
    chosen.splice(chosen.indexOf(index), 1);
  }
  return chosen;
}

/** Widths that fit into `available` columns, the widest columns squeezed first; `undefined` where nothing has to be squeezed. */
function fitWidths(rows: readonly (readonly string[])[], available: number | undefined): readonly number[] | undefined {
  if (available === undefined) return undefined;
  const widths = naturalWidths(rows);
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

function naturalWidths(rows: readonly (readonly string[])[]): number[] {
  const widthOf = (cell: string) => Math.max(...cell.split("\n").map(displayWidth));
  return (rows[0] ?? []).map((_, index) => rows.reduce((width, row) => Math.max(width, widthOf(row[index] ?? "")), 1));
}

const WIDE =
  /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}\uff01-\uff60]/u;

/** Terminal columns that `text` needs, near enough to choose widths by. */
function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) width += WIDE.test(character) ? 2 : 1;
  return width;
}
