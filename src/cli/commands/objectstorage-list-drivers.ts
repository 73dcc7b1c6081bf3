import { loadDrivers } from "../../app/index.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { writeTable } from "../table.ts";

/** What `objectstorage list-drivers` prints. */
export interface DriverList {
  readonly drivers: readonly {
    readonly name: string;
    /** Other names of the same. */
    readonly aliases: readonly string[];
    readonly summary: string;
  }[];
}

export async function objectstorageListDrivers(context: Context): Promise<void> {
  const list: DriverList = {
    drivers: (await loadDrivers()).map(({ name, aliases, summary }) => ({ name, aliases, summary })),
  };
  if (context.format === "json") return await writeJson(context.output, list);
  await writeTable(
    context.output,
    [{ title: "DRIVER" }, { title: "OTHER NAMES" }, { title: "KEEPS OBJECTS IN" }],
    list.drivers.map(({ name, aliases, summary }) => [name, aliases.join(", ") || "-", summary]),
    context.colors.bold,
  );
}
