import { describe, expect, test } from "vitest";
import { Secret } from "../../../config/index.ts";
import { loginOf, settingsOf } from "./config.ts";
import { swiftDriver } from "./index.ts";

const { schema } = swiftDriver;
const first = {
  user: "test:tester",
  key: "testing-key",
  auth: "http://swift.example.com:8080/auth/v1.0",
  container: "anchorearchive",
};
const second = {
  auth_version: "2",
  os_username: "U",
  os_password: "the-password",
  os_tenant_name: "T",
  os_auth_url: "https://keystone/v2.0",
  container: "anchorearchive",
};
const third = {
  auth_version: "3",
  os_username: "U",
  os_password: "the-password",
  os_project_name: "J",
  os_project_domain_name: "N",
  os_auth_url: "https://keystone/v3",
  container: "anchorearchive",
};

/** `key: message` of each problem. */
function problemsOf(section: object): string[] {
  const result = schema.safeParse(section);
  return result.success ? [] : result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

describe("the documented sections", () => {
  test.each([
    [1, { ...first, create_container: true }],
    [2, second],
    [3, third],
  ])("version %i", (version, section) => {
    expect(loginOf(schema.parse(section))).toMatchObject({ version });
  });

  test("secrets don't print", () => {
    for (const section of [first, second, { ...first, os_auth_token: "a-token", os_storage_url: "http://h/v1/a" }]) {
      expect(JSON.stringify(schema.parse(section))).not.toMatch(/testing-key|the-password|a-token/);
    }
    expect(schema.parse(first).key).toBeInstanceOf(Secret);
  });
});

describe("the version", () => {
  const { auth_version: _, ...open } = third;
  const { os_project_domain_name: __, ...noDomain } = open;
  test.each([
    [1, first],
    [1, { ...first, auth_version: 1 }],
    [1, { ...first, auth_version: "1.0" }],
    [2, { ...second, auth_version: 2 }],
    [2, { ...second, auth_version: "2.0" }],
    [3, { ...third, auth_version: 3 }],
    [3, { ...third, auth_version: "3.0" }],
    [3, open],
    [3, { ...noDomain, os_user_domain_id: "d" }],
    [2, noDomain],
    [1, { ...noDomain, ...first }],
  ])("is %i for %o", (version, section) => {
    expect(loginOf(schema.parse(section))?.version).toBe(version);
  });

  test.each([4, "2.5", 1.5, true, ""])("%o is none", (auth_version) => {
    expect(problemsOf({ ...first, auth_version })).toEqual(["auth_version: must be 1.0, 2.0 or 3"]);
  });
});

describe("what is missing or wrong is named", () => {
  const without = (section: object, ...keys: string[]) =>
    Object.fromEntries(Object.entries(section).filter(([key]) => !keys.includes(key)));
  test.each([
    ["container", without(first, "container")],
    ["auth", without(first, "auth")],
    ["user", without(first, "user")],
    ["key", without(first, "key")],
    ["auth", { container: "c" }],
    ["os_auth_url", without(second, "os_auth_url")],
    ["os_username", without(second, "os_username")],
    ["os_password", without(second, "os_password")],
    ["os_tenant_name", without(second, "os_tenant_name")],
    ["os_auth_url", without(third, "os_auth_url")],
    ["os_username", without(third, "os_username")],
    ["os_password", without(third, "os_password")],
    ["os_project_name", without(third, "os_project_name")],
    ["os_storage_url", { container: "c", os_auth_token: "t" }],
    ["key_file", { ...first, key_file: "/run/key" }],
    ["os_password_file", { ...second, os_password_file: "/run/key" }],
    ["auth", { ...first, auth: "swift.example.com" }],
    ["auth", { ...first, auth: "ftp://swift.example.com" }],
    ["auth", { ...first, auth: "http://u:p@swift.example.com" }],
    ["container", { ...first, container: "a/b" }],
    ["container", { ...first, container: "" }],
    ["container", { ...first, container: ".." }],
    ["container", { ...first, container: "é".repeat(129) }],
    ["anchore_key_prefix", { ...first, anchore_key_prefix: "a/../b" }],
    ["create_container", { ...first, create_container: "true" }],
    ["insecure", { ...first, insecure: 1 }],
    ["os_endpoint_type", { ...first, os_endpoint_type: "privateURL" }],
    ["", { ...first, contaner: "x" }],
  ])("%s of %o", (key, section) => {
    const problems = problemsOf(section);
    expect(problems).toHaveLength(1);
    expect(problems[0]?.startsWith(`${key}: `)).toBe(true);
  });
});

describe("the place", () => {
  const placeOf = (section: object) => settingsOf(schema.parse(section));

  test("has no credentials, and does not change with them", () => {
    expect(placeOf({ ...third, os_region_name: "R", anchore_key_prefix: "p/" })).toEqual({
      container: "anchorearchive",
      anchore_key_prefix: "p/",
      auth: "https://keystone/v3",
      os_region_name: "R",
      project: "J",
      projectDomain: "N",
    });
    const changed = {
      ...third,
      os_username: "V",
      os_password: "other",
      os_endpoint_type: "internalURL",
      insecure: true,
      retries: 9,
    };
    expect(placeOf(changed)).toEqual(placeOf(third));
    expect(placeOf({ ...first, user: "test:other", key: "other", auth: `${first.auth}/` })).toEqual(placeOf(first));
  });

  test("changes with what leads elsewhere", () => {
    const places = [
      first,
      { ...first, container: "two" },
      { ...first, anchore_key_prefix: "p" },
      { ...first, user: "best:tester" },
      { ...first, os_storage_url: "http://h/v1/a" },
      second,
      { ...second, os_tenant_name: "X" },
      { ...second, os_region_name: "X" },
      third,
      { ...third, os_project_domain_name: "X" },
    ].map((section) => JSON.stringify(placeOf(section)));
    expect(new Set(places).size).toBe(places.length);
  });
});
