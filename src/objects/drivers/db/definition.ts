import { z } from "zod";
import type { DriverDefinition } from "../../driver.ts";
import { DatabaseDriver } from "./database-driver.ts";

const schema = z.strictObject({}).describe("nothing to configure: the database of `credentials.database`");

/** `storage_driver: {name: db}`, the default. */
export const databaseDriver: DriverDefinition<z.infer<typeof schema>> = {
  name: "db",
  aliases: ["db2"],
  summary: "the PostgreSQL database itself",
  schema,
  settingsOf: () => ({}),
  open: async (_config, { database }) => new DatabaseDriver(database),
};
