import { databaseDriver } from "../objects/drivers/db/index.ts";
import type { DriverDefinition } from "../objects/index.ts";

/** The storage drivers that configurations can name. */
export const drivers: readonly DriverDefinition[] = [databaseDriver];
