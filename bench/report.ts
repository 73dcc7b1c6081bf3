/** A goal of the project, what was measured, and whether it is met. */
interface Goal {
  readonly text: string;
  readonly measured: string;
  readonly isMet: boolean;
}

/** Prints as it goes, since a bench takes minutes: aligned tables for a terminal, or Markdown for `bench/RESULTS.md`. */
export class Report {
  readonly #markdown: boolean;
  readonly #goals: Goal[] = [];
  readonly #leftOut: string[] = [];

  constructor(markdown: boolean) {
    this.#markdown = markdown;
  }

  heading(text: string): void {
    console.log(this.#markdown ? `\n## ${text}\n` : `\n${text}\n${"=".repeat(text.length)}`);
  }

  subheading(text: string): void {
    console.log(this.#markdown ? `\n### ${text}\n` : `\n${text}\n${"-".repeat(text.length)}`);
  }

  list(lines: readonly string[]): void {
    for (const line of lines) console.log(`- ${line}`);
  }

  /** The first row is the head; all columns but the first are figures. */
  table(rows: readonly (readonly string[])[]): void {
    const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
    const lines = rows.map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))),
    );
    const [head = [], ...body] = lines;
    console.log("");
    if (this.#markdown) {
      const rule = widths.map((width, column) => (column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
      for (const line of [head, rule, ...body]) console.log(`| ${line.join(" | ")} |`);
    } else {
      for (const line of [head, widths.map((width) => "-".repeat(width)), ...body])
        console.log(line.join("  ").trimEnd());
    }
    console.log("");
  }

  goal(text: string, measured: string, isMet: boolean): void {
    this.#goals.push({ text, measured, isMet });
  }

  leftOut(text: string): void {
    this.#leftOut.push(text);
  }

  /** The goals and what was left out: the end of the report. */
  goals(): void {
    this.subheading("Goals");
    this.table([
      ["goal", "measured", "met"],
      ...this.#goals.map(({ text, measured, isMet }) => [text, measured, isMet ? "yes" : "NO"]),
    ]);
    if (this.#leftOut.length > 0) {
      this.subheading("Left out");
      this.list([...new Set(this.#leftOut)]);
    }
  }
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

export function milliseconds(ms: number): string {
  return `${ms.toFixed(0)} ms`;
}

/** Decimal megabytes. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;
}

export function ratio(value: number): string {
  return `${value.toFixed(2)} ×`;
}
