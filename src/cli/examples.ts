import type { Command } from "commander";

interface Example {
  readonly command: string;
  readonly does: string;
}

/** Ends a command's help with examples. */
export function addExamples(command: Command, examples: readonly Example[]): void {
  const width = Math.max(...examples.map((example) => example.command.length));
  const lines = examples.map(({ command: line, does }) => `  ${line.padEnd(width)}  ${does}`);
  command.addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
}
