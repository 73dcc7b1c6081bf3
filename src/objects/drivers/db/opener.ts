import type { DriverOpener } from "../../driver.ts";
import { DatabaseDriver } from "./database-driver.ts";

/** Needs no configuration, and is there without loading what reads one. */
export const databaseOpener: DriverOpener = {
  name: "db",
  settingsOf: () => ({}),
  open: async (_config, { database }) => new DatabaseDriver(database),
};
