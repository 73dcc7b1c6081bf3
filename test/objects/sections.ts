import type { BackendSections, DriverDefinition, ObjectDriver } from "../../src/objects/index.ts";

/** A configuration that names one backend, which is reached through `driver`. */
export function sectionsOf(driver: ObjectDriver, settings: Readonly<Record<string, string>> = {}): BackendSections {
  return { workingSet: { definition: definitionOf(driver, settings), config: {} } };
}

export function definitionOf(driver: ObjectDriver, settings: Readonly<Record<string, string>> = {}): DriverDefinition {
  return {
    name: driver.name,
    aliases: [],
    summary: "under test",
    get schema(): never {
      throw new TypeError("no configuration is parsed here");
    },
    settingsOf: () => settings,
    open: async () => driver,
  };
}
