import type { DriverDefinition } from "../../driver.ts";
import { type SwiftConfig, schema, settingsOf } from "./config.ts";

/** `storage_driver: {name: swift}`. */
export const swiftDriver: DriverDefinition<SwiftConfig> = {
  name: "swift",
  aliases: [],
  summary: "a container of OpenStack Swift",
  schema,
  settingsOf,
  async open(config, _surroundings, call) {
    // Its HTTP client is loaded by those only who use it.
    const { openSwift } = await import("./open-swift.ts");
    return await openSwift(config, call);
  },
};
