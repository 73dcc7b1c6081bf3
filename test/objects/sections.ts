import type { BackendSections, DriverOpener, ObjectDriver } from "../../src/objects/index.ts";

/** A configuration that names one backend, which is reached through `driver`. */
export function sectionsOf(driver: ObjectDriver, settings: Readonly<Record<string, string>> = {}): BackendSections {
  const opener: DriverOpener = { name: driver.name, settingsOf: () => settings, open: async () => driver };
  return { workingSet: { opener, config: {} } };
}
