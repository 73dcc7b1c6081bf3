import { databaseDriver } from "../objects/drivers/db/definition.ts";
import { localfsDriver } from "../objects/drivers/localfs/index.ts";
import { s3Driver } from "../objects/drivers/s3/index.ts";
import { swiftDriver } from "../objects/drivers/swift/index.ts";
import type { DriverDefinition } from "../objects/index.ts";

/** The storage drivers that configurations can name. */
export const drivers: readonly DriverDefinition[] = [databaseDriver, localfsDriver, s3Driver, swiftDriver].map(
  // Each takes what its own schema made, and nothing else is ever handed to it.
  (driver) => driver as DriverDefinition,
);
