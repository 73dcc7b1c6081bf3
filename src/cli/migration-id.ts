import { StowageError } from "../errors/index.ts";

/** @throws StowageError `INPUT_INVALID` */
export function parseMigrationId(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new StowageError(
    "INPUT_INVALID",
    { what: "ID", value: text, reason: "not the number of a migration" },
    { hint: "see the numbers with: stowage objectstorage list-migrations" },
  );
}
