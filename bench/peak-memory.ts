import { readFileSync } from "node:fs";

/** The most memory that this process has had. Not `maxRSS`, where Linux begins with what the process had that started this one. */
export function peakMemory(): number {
  const highWater = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  if (highWater === undefined) throw new Error("/proc/self/status says nothing of VmHWM");
  return Number(highWater) * 1024;
}
