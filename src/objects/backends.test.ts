import { expect, test } from "vitest";
import { type BackendSection, describeBackend, describeSection } from "./backends.ts";

test("a place has one name, whether a configuration names it or the database, which orders settings as it likes", () => {
  const section = {
    opener: { name: "s3", settingsOf: () => ({ server: "https://x", bucket: "b", prefix: "p" }) },
    config: {},
  } as unknown as BackendSection;
  const row = { driver: "s3", settings: { prefix: "p", bucket: "b", server: "https://x" } };
  expect(describeSection(section)).toBe("s3 bucket=b prefix=p server=https://x");
  expect(describeBackend(row)).toBe(describeSection(section));
});
