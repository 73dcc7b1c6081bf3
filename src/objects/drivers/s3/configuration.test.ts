import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { type S3Configuration, schema, settingsOf } from "./configuration.ts";

const keys = { access_key: "AKIAEXAMPLE", secret_key: "very-secret-key" };
const aws = { ...keys, region: "us-west-2", bucket: "anchoredata" };
const local = { ...keys, url: "http://minio:9000", bucket: "anchoredata" };

function problems(config: unknown): string[] {
  const { error } = schema.safeParse(config);
  return (error?.issues ?? []).map(({ path, message }) => `${path.join(".")}: ${message}`);
}

const parsed = (config: unknown): S3Configuration => schema.parse(config);

test.each([
  ["a url, region false, create_bucket", { ...local, region: false, create_bucket: true }],
  ["a url, region null", { ...local, region: null }],
  ["a url, an empty region", { ...local, region: "" }],
  ["a url without anything else", local],
  ["a url and a region", { ...local, region: "eu-west-1" }],
  ["AWS with keys", aws],
  ["AWS with a role", { iamauto: true, region: "us-west-2", bucket: "anchoredata", create_bucket: false }],
  ["AWS, the region found by the SDK", { iamauto: true, bucket: "anchoredata" }],
  ["keys that are null: the SDK's search", { access_key: null, secret_key: null, region: "us-west-2", bucket: "b-1" }],
  ["mounted secrets", { access_key_file: "/run/a", secret_key_file: "/run/s", url: "https://s3", bucket: "b-1" }],
])("documented: %s", (_, config) => {
  expect(problems(config)).toEqual([]);
});

test.each([
  ["no bucket", { ...local, bucket: undefined }, /^bucket: /],
  ["a bucket with a slash", { ...local, bucket: "a/b" }, /^bucket: must be a bucket's name: 3 to 63 /],
  ["a bucket of one letter", { ...local, bucket: "b" }, /^bucket: must be a bucket's name: 3 to 63 /],
  ["region false without a url", { ...aws, region: false }, /^region: must have a value where there is no url/],
  ["region null without a url", { ...aws, region: null }, /^region: must have a value/],
  ["a region that is none", { ...aws, region: "US West" }, /^region: must be the name of a region/],
  ["url false", { ...local, url: false }, /^url: must have a value/],
  ["url null beside a region", { ...aws, url: null }, /^url: must have a value/],
  ["a url without a scheme", { ...local, url: "minio:9000" }, /^url: must begin with http/],
  ["a url with credentials", { ...local, url: "http://a:b@minio" }, /^url: must not have credentials/],
  ["a url with a query", { ...local, url: "http://minio/?a=b" }, /^url: must not have a [?] or # in it/],
  ["no credentials", { url: "http://minio", bucket: "b-1" }, /^access_key: is missing: give access_key/],
  ["half of them", { ...local, secret_key: undefined }, /^secret_key: is missing beside access_key/],
  ["half of the files", { iamauto: true, bucket: "b-1", secret_key_file: "/s" }, /^access_key_file: is missing/],
  ["keys and files", { ...local, access_key_file: "/a", secret_key_file: "/s" }, /^access_key_file: stands beside/],
  ["iamauto as text", { bucket: "b-1", iamauto: "true" }, /^iamauto: /],
  ["an unknown key", { ...local, buket: "x" }, /buket/],
  ["a prefix that XML can't carry", { ...local, prefix: "a\u0001" }, /^prefix: /],
  ["a key for no encryption", { ...local, sse_kms_key_id: "k" }, /^sse_kms_key_id: needs sse/],
])("refused: %s", (_, config, expected) => {
  expect(problems(config).join("\n")).toMatch(expected);
});

test("problems name no secret", () => {
  expect(problems({ ...local, bucket: 5, secret_key: ["very-secret-key"] }).join()).not.toContain("very-secret");
});

test("secrets don't print", () => {
  const text = `${inspect(parsed(local), { depth: 9 })} ${JSON.stringify(parsed(local))}`;
  expect(text).not.toMatch(/very-secret-key|AKIAEXAMPLE/);
});

test("defaults", () => {
  expect(parsed(local)).toMatchObject({ createsBucket: false, prefix: "", isPathStyle: true, region: undefined });
  expect(parsed(aws)).toMatchObject({ isPathStyle: false, url: undefined, region: "us-west-2" });
  expect(parsed({ ...aws, addressing_style: "path" }).isPathStyle).toBe(true);
  expect(parsed({ ...local, addressing_style: "auto", create_bucket: null, prefix: null })).toEqual(parsed(local));
  expect(parsed({ ...local, addressing_style: "virtual" }).isPathStyle).toBe(false);
});

describe("the place", () => {
  const place = (config: unknown) => settingsOf(parsed(config));

  test("is server, bucket and prefix, and nothing that may change", () => {
    expect(place({ ...local, prefix: "a/", region: "eu-west-1" })).toEqual({
      server: "http://minio:9000",
      bucket: "anchoredata",
      prefix: "a/",
    });
    const other = { access_key: "other", secret_key: "other", url: "HTTP://MinIO:9000/", bucket: "anchoredata" };
    expect(place(other)).toEqual(place(local));
    expect(place({ ...local, url: "http://minio:80" })).toEqual(place({ ...local, url: "http://minio" }));
  });

  test("AWS is one place, however it is named, but for its separate parts", () => {
    expect(place(aws).server).toBe("aws");
    expect(place({ iamauto: true, bucket: "anchoredata" }).server).toBe("aws");
    expect(place({ ...local, url: "https://s3.us-west-2.amazonaws.com" }).server).toBe("aws");
    expect(place({ ...aws, region: "cn-north-1" }).server).toBe("aws-cn");
    expect(place({ ...local, url: "https://s3.cn-north-1.amazonaws.com.cn" }).server).toBe("aws-cn");
    expect(place({ ...aws, region: "us-gov-west-1" }).server).toBe("aws-us-gov");
    expect(place({ ...local, url: "https://s3.us-west-2.amazonaws.com.example.org" }).server).not.toBe("aws");
  });
});
