import { z } from "zod";
import type { DriverDefinition } from "../../driver.ts";
import { databaseOpener } from "./opener.ts";

const schema = z.strictObject({}).describe("nothing to configure: the database of `credentials.database`");

/** `storage_driver: {name: db}`, the default. */
export const databaseDriver: DriverDefinition<z.infer<typeof schema>> = {
  ...databaseOpener,
  aliases: ["db2"],
  summary: "the PostgreSQL database itself",
  schema,
};
