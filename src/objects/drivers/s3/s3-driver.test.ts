import { expect, test } from "vitest";
import { describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { driverOnNewBucket, type S3Server } from "../../../../test/s3/bucket.ts";
import { startModelServer } from "../../../../test/s3/model-server.ts";
import { startStandIn } from "../../../../test/s3/stand-in.ts";

describeDriver("the s3 driver on a stand-in from npm", async () => {
  await using starting = new AsyncDisposableStack();
  const server = starting.use(await startStandIn());
  const keys = { access_key: "S3RVER", secret_key: "S3RVER" };
  const backend = starting.use(await driverOnNewBucket({ name: "s3rver", url: server.url, ...keys }));
  const started = starting.move();
  return { ...backend, [Symbol.asyncDispose]: () => started.disposeAsync() };
});

describeDriver("the s3 driver on a model of S3, which verifies checksums and conditions", async () => {
  await using starting = new AsyncDisposableStack();
  const server = starting.use(await startModelServer());
  const keys = { access_key: "model", secret_key: "model-secret" };
  const backend = starting.use(await driverOnNewBucket({ name: "model", url: server.url, ...keys }));
  const started = starting.move();
  return { ...backend, [Symbol.asyncDispose]: () => started.disposeAsync() };
});

const servers = JSON.parse(process.env.STOWAGE_TEST_S3 || "[]") as readonly S3Server[];
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("s3");

for (const server of servers) describeDriver(`the s3 driver on ${server.name}`, () => driverOnNewBucket(server));

if (servers.length === 0 && isRequired) {
  test("the s3 driver on real servers", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names s3, but STOWAGE_TEST_S3 is not set");
  });
} else if (servers.length === 0) {
  test.skip("the s3 driver on real servers: SKIPPED, set STOWAGE_TEST_S3 to a JSON list of {name, url, access_key, secret_key}", () => {});
}
