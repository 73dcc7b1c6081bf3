import type { DriverDefinition } from "../../driver.ts";
import { type S3Configuration, schema, settingsOf } from "./configuration.ts";

/** `storage_driver: {name: s3}`. */
export const s3Driver: DriverDefinition<S3Configuration> = {
  name: "s3",
  aliases: [],
  summary: "a bucket of Amazon S3 or of a server that speaks its protocol",
  schema,
  settingsOf,
  async open(config, _surroundings, call) {
    // The SDK takes a quarter of a second to load: commands that never open a bucket don't pay for it.
    const { openBucket } = await import("./open-bucket.ts");
    return await openBucket(config, {}, call);
  },
};
