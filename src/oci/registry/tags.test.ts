import { describe, expect, it } from "vitest";
import { failureOf } from "../../../test/conformance/failure.ts";
import { buildImage } from "../../../test/images/builder.ts";
import {
  type Fault,
  type RegistryOptions,
  startRegistry,
  type TestRegistry,
} from "../../../test/registry/registry-server.ts";
import { testSourceOptions } from "../../../test/registry/source-options.ts";
import { createCall } from "../../runtime/index.ts";
import { listTags } from "../index.ts";
import { parseReference } from "../reference.ts";
import { findNextLink } from "./tags.ts";

const call = createCall();
const image = buildImage({ layers: [] });
const many = Array.from({ length: 25 }, (_, at) => `v${at}`);

async function setUp(options: RegistryOptions, tags: readonly string[]) {
  const registry = await startRegistry(options);
  registry.push("team/app", image, ...tags);
  const sourceOptions = testSourceOptions();
  return {
    registry,
    told: sourceOptions.told,
    list: (name = "team/app") => listTags(parseReference(`${registry.host}/${name}`), sourceOptions, call),
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

const page = (tags: unknown, link?: string): Fault => ({
  status: 200,
  headers: link === undefined ? {} : { link },
  body: JSON.stringify({ name: "team/app", tags }),
});

describe("listTags", () => {
  it("follows the pages to their end, logs in once, sorts and drops what comes twice", async () => {
    await using setup = await setUp({ tagsPageMax: 10, auth: { kind: "bearer", anonymous: true } }, many);
    expect(await setup.list()).toEqual(many.toSorted());
    expect(setup.registry.seen("/token")).toHaveLength(1);
    // The first is asked twice: once without a token.
    expect(setup.registry.seen("/tags/list")).toHaveLength(4);
    setup.registry.fail({ path: "/tags/list", faults: [page(["b", "a", "b"], '</more>; rel="next"')] });
    setup.registry.fail({ path: "/more", faults: [page(["a", "c"])] });
    expect(await setup.list()).toEqual(["a", "b", "c"]);
  });

  it.each([
    ["absolute", (registry: TestRegistry) => `<${registry.url}/more?last=a%2Fb>; rel="next"`],
    ["absolute, of another scheme", (registry: TestRegistry) => `<https://${registry.host}/more?last=a%2Fb>; rel=next`],
    ["relative to the path", () => '<../../../../more?last=a%2Fb>; title="a, <b>"; rel="last next"'],
    ["among others", () => '</no>; rel="prev", </more?last=a%2Fb>; rel="next"'],
  ])("follows a link that is %s", async (_, link) => {
    await using setup = await setUp({}, []);
    setup.registry.fail({ path: "/tags/list", faults: [page(["a"], link(setup.registry))] });
    setup.registry.fail({ path: "/more?last=a%2Fb", faults: [page(["b"])] });
    expect(await setup.list()).toEqual(["a", "b"]);
  });

  it("knows a repository without tags from one that is not there", async () => {
    await using setup = await setUp({}, []);
    expect(await setup.list()).toEqual([]);
    const error = await failureOf(setup.list("team/other"));
    expect(error.code).toBe("IMAGE_NOT_FOUND");
    expect(error.details.image).toBe(`${setup.registry.host}/team/other`);
  });

  it("leaves out names that are no tags, and says so", async () => {
    await using setup = await setUp({}, []);
    setup.registry.fail({
      path: "/tags/list",
      faults: [page(["ok", "../up", "a b", "\u001b[31m", "x".repeat(129), ""])],
    });
    expect(await setup.list()).toEqual(["ok"]);
    expect(setup.told).toEqual([`${setup.registry.host}/team/app: left out tags whose names are not valid: 5`]);
  });

  it.each([
    ["a link elsewhere", page(["a"], '<http://192.0.2.1/v2/team/app/tags/list>; rel="next"')],
    ["a link to another port", page(["a"], '<http://127.0.0.1:1/v2/team/app/tags/list>; rel="next"')],
    ["a link that is none", page(["a"], '<http://[>; rel="next"')],
    ["an empty page that names another", page([], '</v2/team/app/tags/list?last=a>; rel="next"')],
    ["no JSON", { status: 200, body: "<html>" }],
    ["tags that are no texts", page([1])],
    ["deep nesting", { status: 200, body: "[".repeat(1_000_000) }],
  ] satisfies [string, Fault][])("refuses %s", async (_, fault) => {
    await using setup = await setUp({}, []);
    setup.registry.fail({ path: "/tags/list", faults: [fault] });
    expect((await failureOf(setup.list())).code).toBe("REGISTRY_ANSWER_INVALID");
    expect(setup.registry.requests).toHaveLength(1);
  });

  it("goes in no circle", async () => {
    await using setup = await setUp({}, []);
    const again = page(["a"], '</v2/team/app/tags/list?last=a>; rel="next"');
    setup.registry.fail({ path: "/tags/list", faults: [again], repeat: true });
    expect((await failureOf(setup.list())).code).toBe("REGISTRY_ANSWER_INVALID");
    expect(setup.registry.requests).toHaveLength(2);
  });

  it("reads bounded pages, and a bounded number of tags", async () => {
    await using setup = await setUp({}, []);
    setup.registry.fail({ path: "/tags/list", faults: [{ status: 200, body: Buffer.alloc(9 * 2 ** 20, 0x20) }] });
    expect((await failureOf(setup.list())).details.limit).toBe("tagPageBytesMax");
    const tags = Array.from({ length: 250_001 }, (_, at) => `t${at}`);
    setup.registry.fail({ path: "/tags/list", faults: [page(tags)] });
    expect((await failureOf(setup.list())).details.limit).toBe("tagsMax");
  });

  it("says who may not", async () => {
    await using setup = await setUp({}, []);
    setup.registry.fail({ path: "/tags/list", faults: [{ status: 403 }] });
    expect((await failureOf(setup.list())).code).toBe("ACCESS_DENIED");
  });
});

it("takes any Link header in linear time", () => {
  for (const piece of ["<", ">", '"', "<>", '<>"', ";", "; rel=", "<a>; ", ","]) {
    expect(findNextLink(piece.repeat(100_000))).toBeUndefined();
  }
});
