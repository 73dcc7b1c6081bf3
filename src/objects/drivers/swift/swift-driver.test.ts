import { expect, test } from "vitest";
import { describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { openContainer, parseServer } from "../../../../test/swift/real-server.ts";

const given = process.env.STOWAGE_TEST_SWIFT;
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("swift");

if (given !== undefined) {
  const server = parseServer(given);
  describeDriver("the swift driver on a real Swift", () => openContainer(server, {}));
  describeDriver("the swift driver on a real Swift, in segments", () =>
    openContainer(server, { segmentBytes: 1024 * 1024, prefix: "anchore/é#?%/" }),
  );
} else if (isRequired) {
  test("the swift driver on a real Swift", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names swift, but STOWAGE_TEST_SWIFT is not set");
  });
} else {
  test.skip('the swift driver on a real Swift: SKIPPED, set STOWAGE_TEST_SWIFT to {"auth": URL, "user": …, "key": …} of one with static large objects', () => {});
}
