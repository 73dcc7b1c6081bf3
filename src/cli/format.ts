/** Numbers, sizes and times for people. Documents for programs have plain numbers and ISO 8601 instead. */
import { formatCount } from "../runtime/index.ts";

/** Bytes in decimal units, three significant digits: `0 B`, `999 B`, `1.23 kB`, `478 MB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  // 999.5 would round to 1000 of the smaller unit.
  while (unit < units.length - 1 && value >= (unit === 0 ? 1000 : 999.5)) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `85 ms`, `2.4 s`, `3 min 05 s`, `2 h 10 min`. */
export function formatDuration(ms: number): string {
  if (ms > 0 && ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms % 1000 === 0 ? 0 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Moment in UTC to the second: `2026-11-24 21:10:27Z`. */
export function formatTime(time: Date): string {
  return time
    .toISOString()
    .replace("T", " ")
    .replace(/[.]\d+/, "");
}

/** `sha256:` and the first twelve digits: enough to tell images apart, not a name to give to a program. */
export function shortDigest(digest: string): string {
  const colon = digest.indexOf(":");
  return digest.slice(0, colon + 13);
}

/** `npm 12, python 3` or `-`. */
export function formatPackageCounts(packages: Readonly<Record<string, number>>): string {
  const parts = Object.entries(packages).map(([type, count]) => `${type} ${formatCount(count)}`);
  return parts.length === 0 ? "-" : parts.join(", ");
}
