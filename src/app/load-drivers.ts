import type { DriverDefinition } from "../objects/index.ts";

/** The storage drivers that configurations can name. Loaded when a configuration is read: their schemas take longer than the rest of a short command. */
export async function loadDrivers(): Promise<readonly DriverDefinition[]> {
  const { drivers } = await import("./drivers.ts");
  return drivers;
}
