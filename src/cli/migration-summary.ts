import type { RecordedMigration } from "../app/index.ts";
import { formatCount } from "../runtime/index.ts";
import type { Context } from "./context.ts";
import { formatBytes, formatTime } from "./format.ts";
import { printable } from "./printable.ts";
import { writeFields } from "./table.ts";

type State = RecordedMigration["state"];

/** A migration under the keys that its summary has always had, and what they did not say. */
export interface MigrationSummary {
  readonly id: number;
  readonly type: "archivemigrationtask";
  readonly state: State;
  readonly last_state: State | undefined;
  /** `host:pid:thread:` */
  readonly executor_id: string;
  readonly created_at: Date;
  readonly started_at: Date | undefined;
  readonly ended_at: Date | undefined;
  readonly last_updated: Date;
  readonly migrate_from_driver: string;
  readonly migrate_to_driver: string;
  readonly migrate_from: string;
  readonly migrate_to: string;
  readonly archive_documents_to_migrate: number;
  /** Verified and found at the destination. */
  readonly archive_documents_migrated: number;
  /** Of these, those whose sources readers may still need. */
  readonly sources_left: number;
  readonly online_migration: boolean;
  /** How copies are compared with what was copied. */
  readonly verify: "readback" | "checksum";
  /** Changed or deleted meanwhile: there was nothing to move. */
  readonly superseded: number;
  readonly failed: number;
  readonly bytes: number;
  readonly bytes_migrated: number;
  /** Bytes per second over all its time; missing while that can't be said. */
  readonly rate: number | undefined;
}

export function summaryOf(migration: RecordedMigration, now: Date): MigrationSummary {
  const { counts, options, startedAt, endedAt, state } = migration;
  const bytes = counts.switched.bytes + counts.done.bytes;
  const until = endedAt ?? (state === "running" ? now : undefined);
  const seconds = startedAt === undefined || until === undefined ? 0 : (until.getTime() - startedAt.getTime()) / 1000;
  return {
    id: migration.id,
    type: "archivemigrationtask",
    state,
    last_state: lastStateOf(migration),
    executor_id: migration.executor,
    created_at: migration.createdAt,
    started_at: startedAt,
    ended_at: endedAt,
    last_updated: migration.updatedAt,
    migrate_from_driver: migration.source.driver,
    migrate_to_driver: migration.destination.driver,
    migrate_from: migration.source.place,
    migrate_to: migration.destination.place,
    archive_documents_to_migrate: migration.objects,
    archive_documents_migrated: counts.switched.objects + counts.done.objects,
    sources_left: counts.switched.objects,
    online_migration: options.isOnline,
    verify: options.verify,
    superseded: counts.superseded.objects,
    failed: counts.failed.objects,
    bytes: migration.bytes,
    bytes_migrated: bytes,
    rate: seconds > 0 ? Math.round(bytes / seconds) : undefined,
  };
}

function lastStateOf({ state, startedAt }: RecordedMigration): State | undefined {
  if (state === "planning") return undefined;
  return startedAt === undefined || state === "running" ? "planning" : "running";
}

export async function writeSummary({ output, colors }: Context, summary: MigrationSummary): Promise<void> {
  const fields = Object.entries(summary).map(([name, value]): [string, string | undefined] => [
    name,
    shown(name, value),
  ]);
  await writeFields(output, fields, colors.bold);
}

function shown(name: string, value: MigrationSummary[keyof MigrationSummary]): string | undefined {
  if (value === undefined) return undefined;
  if (value instanceof Date) return formatTime(value);
  if (typeof value === "string") return printable(value);
  if (typeof value === "boolean" || name === "id") return String(value);
  if (name === "rate") return formatRate(value);
  return name.startsWith("bytes") ? formatBytes(value) : formatCount(value);
}

export function formatRate(bytesPerSecond: number | undefined): string {
  return bytesPerSecond === undefined ? "-" : `${formatBytes(bytesPerSecond)}/s`;
}
