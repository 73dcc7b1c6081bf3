import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { drivers } from "../app/drivers.ts";
import { StowageError } from "../errors/index.ts";
import { type Configuration, defaultConfiguration } from "./configuration.ts";
import { parseConfiguration } from "./parse.ts";

const seed = Number(process.env.STOWAGE_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
process.stderr.write(`the analyzer's section: STOWAGE_TEST_SEED=${seed}\n`);

const place = "services.analyzer";
const off = { enabled: false, bytesMax: 1e9 };

function parse(text: string, variables: Record<string, string> = {}): Configuration {
  return parseConfiguration(text, { file: "config.yaml", variables, drivers });
}

/** A file with these lines below `services.analyzer`, the first of which is line 3. */
const analyzer = (...lines: string[]) => ["services:", "  analyzer:", ...lines.map((line) => `    ${line}`)].join("\n");
const enable = (value: string) => analyzer(`layer_cache_enable: ${value}`);
const gigabytes = (value: string) => analyzer("# as it should be", `layer_cache_max_gigabytes: ${value}`);

function failure(text: string, variables: Record<string, string> = {}): readonly unknown[] {
  try {
    parse(text, variables);
  } catch (error) {
    if (!(error instanceof StowageError)) throw error;
    expect(error).toMatchObject({ code: "CONFIG_INVALID", details: { file: "config.yaml" } });
    return [error.details.key, error.details.line, error.details.reason, error.hint];
  }
  throw new Error("it was accepted");
}

const variable = `\${CACHE}`;

describe("layer_cache_enable", () => {
  it.each(["", "services: {analyzer: }", "services: {analyzer: {}}", enable(""), enable("null"), enable("~")])(
    "is off where nothing is said: %j",
    (text) => {
      expect(parse(text)).toMatchObject({ layerCache: off, warnings: [] });
    },
  );

  it.each(["true", "True", "yes", "on", "ON"])("on: %s", (value) => {
    expect(parse(enable(value)).layerCache).toEqual({ enabled: true, bytesMax: 1e9 });
  });

  it.each(["false", "no", "off", "Off"])("off: %s", (value) => {
    expect(parse(enable(value)).layerCache).toEqual(off);
  });

  it.each([
    ["'false'", "it must be true or false, not a text", "write true or false, without quotes"],
    ['"true"', "it must be true or false, not a text", "write true or false, without quotes"],
    ["enabled", "it must be true or false, not a text", "write true or false, without quotes"],
    ["1", "it must be true or false, not a number", undefined],
    ["[]", "it must be true or false, not a list", undefined],
    ["{}", "it must be true or false, not a map", undefined],
  ])("is not guessed: %s", (value, reason, hint) => {
    expect(failure(enable(value))).toEqual([`${place}.layer_cache_enable`, 3, reason, hint]);
  });

  it("takes what a variable looks like, and nothing else", () => {
    for (const [text, enabled] of [
      ["true", true],
      ["false", false],
      ["no", false],
      ["", false],
    ] as const) {
      expect(parse(enable(variable), { CACHE: text }).layerCache.enabled).toBe(enabled);
    }
    expect(failure(enable(variable), { CACHE: "maybe" })[2]).toBe("it must be true or false, not a text");
  });
});

describe("layer_cache_max_gigabytes", () => {
  it.each([
    ["1", 1e9],
    ["4", 4e9],
    ["1.5", 1.5e9],
    ["'10'", 10e9],
    ['"2.25"', 2.25e9],
    ["1_0", 10e9],
    ["1.000000001", 1_000_000_001],
    ["1000000", 1e15],
    ["", 1e9],
    ["null", 1e9],
  ])("%s", (value, bytesMax) => {
    expect(parse(gigabytes(value))).toMatchObject({ layerCache: { enabled: false, bytesMax }, warnings: [] });
  });

  const least = "it must be at least 1; it is layer_cache_enable that turns the cache on and off";
  it.each([
    ["0", least],
    ["0.5", least],
    ["'0.5'", least],
    ["0.999999999", least],
    ["-1", least],
    ["'-4'", least],
    ["-.inf", "it must be a number of gigabytes"],
    [".inf", "it must be a number of gigabytes"],
    [".nan", "it must be a number of gigabytes"],
    ["ten", "it must be a number of gigabytes"],
    ["10GB", "it must be a number of gigabytes"],
    ["''", "it must be a number of gigabytes"],
    ["' 5'", "it must be a number of gigabytes"],
    ["0x10 0", "it must be a number of gigabytes"],
    ["true", "it must be a number of gigabytes"],
    ["[4]", "it must be a number of gigabytes"],
    ["{max: 4}", "it must be a number of gigabytes"],
    ["1000001", "it must be at most 1000000"],
    ["'999999999999'", "it must be a number of gigabytes"],
    ["9007199254740993", "it must be a number of gigabytes"],
  ])("is refused with its line: %s", (value, reason) => {
    expect(failure(gigabytes(value))).toEqual([`${place}.layer_cache_max_gigabytes`, 4, reason, undefined]);
    // Also where nobody wants a cache: it would be wrong on the day on which somebody does.
    expect(failure(analyzer("layer_cache_enable: false", `layer_cache_max_gigabytes: ${value}`))[1]).toBe(4);
  });

  it("comes from a variable as well", () => {
    expect(parse(gigabytes(variable), { CACHE: "7" }).layerCache.bytesMax).toBe(7e9);
    expect(parse(gigabytes(`"${variable}"`), { CACHE: "7" }).layerCache.bytesMax).toBe(7e9);
    expect(failure(gigabytes(variable), { CACHE: "0" })[2]).toBe(least);
  });

  it("whatever stands there is a whole number of bytes from 10⁹ on, or an error with key and line", () => {
    const texts = fc.oneof(
      fc.double().map(String),
      fc.integer().map(String),
      fc.string({ unit: fc.constantFrom(..."0123456789.-+e_xobn'\" ,[]{}#") }),
      fc.string({ unit: "binary" }),
    );
    fc.assert(
      fc.property(texts, (text) => {
        let found: Configuration;
        try {
          found = parse(gigabytes(variable), { CACHE: text });
        } catch (error) {
          expect(error).toMatchObject({
            code: "CONFIG_INVALID",
            details: { line: 4, key: `${place}.layer_cache_max_gigabytes` },
          });
          return;
        }
        expect(Number.isSafeInteger(found.layerCache.bytesMax)).toBe(true);
        expect(found.layerCache.bytesMax).toBeGreaterThanOrEqual(1e9);
      }),
      { seed, numRuns: 500 },
    );
  });
});

describe("services.analyzer", () => {
  it("shows what holds, and from where", () => {
    const shown = ({ values }: Configuration) => values.filter(({ key }) => key.startsWith(place));
    expect(
      shown(parse(analyzer("layer_cache_enable: yes", `layer_cache_max_gigabytes: ${variable}`), { CACHE: "2.5" })),
    ).toEqual([
      {
        key: `${place}.layer_cache_enable`,
        value: true,
        source: { kind: "file", file: "config.yaml", line: 3, variables: [] },
      },
      {
        key: `${place}.layer_cache_max_gigabytes`,
        value: 2.5,
        source: { kind: "file", file: "config.yaml", line: 4, variables: ["CACHE"] },
      },
    ]);
    const defaults = [
      { key: `${place}.layer_cache_enable`, value: false, source: { kind: "default" } },
      { key: `${place}.layer_cache_max_gigabytes`, value: 1, source: { kind: "default" } },
    ];
    expect(shown(parse("log_level: INFO"))).toEqual(defaults);
    expect(shown(defaultConfiguration)).toEqual(defaults);
  });

  it("names other keys of the original and unknown ones in warnings", () => {
    const { warnings, layerCache } = parse(
      analyzer(
        "enabled: true",
        "max_threads: 4",
        "cycle_timers: {image_analyzer: 1}",
        "own: 1",
        "layer_cache_enable: on",
      ),
    );
    expect(layerCache.enabled).toBe(true);
    expect(warnings).toEqual([
      {
        file: "config.yaml",
        line: 3,
        text: `keys that have no meaning here: ${place}.enabled, ${place}.max_threads, ${place}.cycle_timers`,
      },
      { file: "config.yaml", line: 6, text: `keys that are not known: ${place}.own` },
    ]);
  });

  it.each([
    [analyzer("layer_cache_enabled: true"), `${place}.layer_cache_enabled`, 3, "did you mean layer_cache_enable?"],
    [analyzer("layercache-enable: true"), `${place}.layercache-enable`, 3, "did you mean layer_cache_enable?"],
    [
      analyzer("layer_cache_max_gigabyte: 2"),
      `${place}.layer_cache_max_gigabyte`,
      3,
      "did you mean layer_cache_max_gigabytes?",
    ],
    ["services: {analyser: {layer_cache_enable: true}}", "services.analyser", 1, "did you mean analyzer?"],
  ])("misspelt keys are no silent default: %j", (text, key, line, hint) => {
    expect(failure(text)).toEqual([key, line, "this key is not known", hint]);
  });

  it.each([
    ["layer_cache_enable: true", "layer_cache_enable"],
    ["services: {layer_cache_max_gigabytes: 2}", "services.layer_cache_max_gigabytes"],
    ["services: {catalog: {layer_cache_enable: true}}", "services.catalog.layer_cache_enable"],
    ["services: {catalog: {x: {layer_cache_enable: true}}}", "services.catalog.x.layer_cache_enable"],
  ])("at a wrong level shows the right place: %j", (text, key) => {
    expect(failure(text)).toEqual([
      key,
      1,
      "this is not the place of this key: it has no effect here",
      `move it to ${place}.${key.split(".").at(-1)}`,
    ]);
  });

  it.each(["analyzer", "[]", "7"])("must be a map, not %s", (value) => {
    expect(failure(`services:\n  analyzer: ${value}`).slice(0, 2)).toEqual([place, 2]);
  });
});
