import picocolors from "picocolors";
import { describe, expect, test } from "vitest";
import { createLogger } from "../runtime/index.ts";
import { formatLogLine } from "./log-lines.ts";

const plain = picocolors.createColors(false);

function logged(log: (logger: ReturnType<typeof createLogger>) => void): string {
  let text = "";
  log(
    createLogger("trace", (line) => {
      text += formatLogLine(line, plain);
    }),
  );
  return text;
}

describe("a log line for people", () => {
  test("has its level, its message, its fields and its reason, and no time", () => {
    const text = logged((log) =>
      log.warn({ err: new Error("no route"), backend: "s3 bucket=a", count: 3 }, "upkeep failed"),
    );
    expect(text).toBe("warning: upkeep failed (backend: s3 bucket=a; count: 3): no route\n");
    expect(logged((log) => log.error("bad"))).toBe("error: bad\n");
    expect(logged((log) => log.debug({ list: ["a"] }, "seen"))).toBe('debug: seen (list: ["a"])\n');
  });

  test("shows no control characters", () => {
    expect(logged((log) => log.warn({ place: "a\u001b[2Jb" }, "x"))).not.toContain("\u001b");
  });

  test("is left alone when it is none", () => {
    expect(formatLogLine("not JSON\n", plain)).toBe("not JSON\n");
  });
});
