import fc from "fast-check";
import { expect, test } from "vitest";
import { drivers } from "../app/drivers.ts";
import { StowageError } from "../errors/index.ts";
import type { Configuration } from "./configuration.ts";
import { parseConfiguration } from "./parse.ts";
import { maskSecrets, Secret } from "./secret.ts";

const seed = Number(process.env.STOWAGE_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const runs = Number(process.env.STOWAGE_TEST_RUNS ?? 150);
process.stderr.write(`hostile configurations: STOWAGE_TEST_SEED=${seed} STOWAGE_TEST_RUNS=${runs}\n`);

/** With a digit, as keys and passwords that are worth the name have: a lower-case word that becomes a key is taken for one. */
const secret = fc
  .tuple(
    fc.string({
      unit: fc.constantFrom(..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=-_.!"),
      minLength: 8,
      maxLength: 40,
    }),
    fc.integer({ min: 0, max: 9 }),
  )
  .map(([text, digit]) => `x${digit}${text}`);

const configs: readonly ((one: string, other: string) => string)[] = [
  (one, other) =>
    `name: s3\n        config:\n          access_key: ${one}\n          secret_key: ${other}\n          bucket: bucket\n          url: http://minio:9000`,
  (one, other) =>
    `name: s3\n        config: {access_key: "${one}", secret_key: '${other}', bucket: bucket, region: us-east-1}`,
  (one) =>
    `name: swift\n        config:\n          user: tester\n          key: ${one}\n          auth: http://swift:8080/auth/v1.0\n          container: c`,
  (_one, other) =>
    `name: swift\n        config: {auth_version: 3, os_username: U, os_password: "${other}", os_project_name: J, os_project_domain_name: N, os_auth_url: "https://k/v3", container: c}`,
  () => "name: localfs\n        config:\n          archive_data_dir: /srv/objects",
];

const databases: readonly ((secret: string) => string)[] = [
  (text) =>
    `    db_connect: postgresql://anchore:${encodeURIComponent(text)}@db:5432/anchore\n    db_connect_args: {timeout: 12, ssl: false}`,
  (text) => `    db_connect: "postgresql+pg8000://anchore:${text}@db:5432/anchore"`,
  (text) => `    user: anchore\n    password: ${text}\n    host: db\n    port: 5432\n    name: anchore`,
];

const configuration = fc
  .record({
    one: secret,
    other: secret,
    third: secret,
    store: fc.constantFrom(...configs),
    archive: fc.constantFrom(...configs),
    database: fc.constantFrom(...databases),
  })
  .map(({ one, other, third, store, archive, database }) => ({
    secrets: [one, other, third],
    text: `# as it should be
credentials:
  database:
${database(third)}
services:
  catalog:
    enabled: true
    object_store:
      compression: {enabled: true, min_size_kbytes: 100}
      storage_driver:
        ${store(one, other)}
    analysis_archive:
      storage_driver:
        ${archive(other, one)}
`,
  }));

/** Whatever a person or a program may get to see of a failure. */
function seenOf(error: unknown): string {
  let seen = "";
  for (let current = error; current instanceof Error; current = current.cause)
    seen += `${current.stack} ${current.message} `;
  return error instanceof StowageError ? `${seen} ${JSON.stringify(error.serialize())} ${error.hint}` : seen;
}

function outcome(
  text: string,
  variables: Record<string, string> = {},
): { readonly parsed?: Configuration; readonly seen: string } {
  try {
    const parsed = parseConfiguration(text, { file: "config.yaml", variables, drivers });
    return { parsed, seen: JSON.stringify(parsed.warnings) };
  } catch (error) {
    // Nothing else may come out, whatever went in.
    expect(error).toBeInstanceOf(StowageError);
    expect(error).toMatchObject({ code: "CONFIG_INVALID", details: { file: "config.yaml" } });
    expect((error as StowageError).details.line).toBeGreaterThan(0);
    return { seen: seenOf(error) };
  }
}

/** As `config show` prints it. */
function shown({ values }: Configuration): string {
  return maskSecrets(values.map(({ key, value }) => `${key} ${value} ${JSON.stringify(value)}`).join("\n"));
}

function expectHidden(seen: string, secrets: readonly string[]): void {
  for (const each of secrets) {
    for (const form of new Set([each, encodeURIComponent(each)])) expect(seen).not.toContain(form);
  }
}

const lineChange = fc.record({
  kind: fc.constantFrom("remove", "repeat", "move", "indent", "outdent", "comment"),
  at: fc.nat(),
  to: fc.nat(),
});

function changeLine(text: string, { kind, at, to }: { kind: string; at: number; to: number }): string {
  const lines = text.split("\n");
  const index = at % lines.length;
  const line = lines[index] ?? "";
  if (kind === "remove") lines.splice(index, 1);
  else if (kind === "repeat") lines.splice(index, 0, line);
  else if (kind === "move") lines.splice(to % lines.length, 0, ...lines.splice(index, 1));
  else lines[index] = kind === "indent" ? `  ${line}` : kind === "outdent" ? line.replace(/^ {1,2}/, "") : `#${line}`;
  return lines.join("\n");
}

const reference = (name: string) => `\${${name}}`;

const tokens = [
  ": ",
  ":",
  "\n",
  "  ",
  "\t",
  "{",
  "}",
  "[",
  "]",
  ",",
  '"',
  "'",
  "#",
  "&a ",
  "*a",
  "!t ",
  "- ",
  "? ",
  "|\n",
  "---\n",
  "%",
  "@",
  "<<: ",
  reference("A"),
  "\u0000",
  "\\ud800",
  "\ue000",
  "é",
];
const characterChange = fc.oneof(
  fc.record({ kind: fc.constant("delete" as const), at: fc.nat(), length: fc.integer({ min: 1, max: 12 }) }),
  fc.record({ kind: fc.constant("insert" as const), at: fc.nat(), token: fc.constantFrom(...tokens) }),
);

function changeCharacters(
  text: string,
  change: { kind: "delete"; at: number; length: number } | { kind: "insert"; at: number; token: string },
): string {
  const at = change.at % (text.length + 1);
  return change.kind === "delete"
    ? text.slice(0, at) + text.slice(at + change.length)
    : text.slice(0, at) + change.token + text.slice(at);
}

test("no secret is seen where lines are damaged, neither in a failure nor in a warning nor by config show", () => {
  let parsed = 0;
  fc.assert(
    fc.property(configuration, fc.array(lineChange, { maxLength: 3 }), ({ text, secrets }, changes) => {
      const result = outcome(changes.reduce(changeLine, text));
      expectHidden(result.seen, secrets);
      if (result.parsed !== undefined) {
        expectHidden(shown(result.parsed), secrets);
        parsed += 1;
      }
    }),
    { seed, numRuns: runs },
  );
  // The property looks at both kinds.
  expect(parsed).toBeGreaterThan(0);
  expect(parsed).toBeLessThan(runs);
});

test("no secret is seen in failures and warnings where characters are damaged", () => {
  fc.assert(
    fc.property(
      configuration,
      fc.array(characterChange, { minLength: 1, maxLength: 4 }),
      ({ text, secrets }, changes) => {
        expectHidden(outcome(changes.reduce(changeCharacters, text)).seen, secrets);
      },
    ),
    { seed, numRuns: runs * 3 },
  );
});

test("no secret is seen that comes from a variable, whatever it holds", () => {
  const config = `services: {catalog: {object_store: {storage_driver: {name: s3, config: {bucket: bbb, access_key: ${reference("A")}, secret_key: ${reference("B")}}}}}}`;
  fc.assert(
    fc.property(fc.string({ minLength: 6, unit: "binary" }), fc.string({ minLength: 6 }), (a, b) => {
      const { seen, parsed } = outcome(config, { A: `x9${a}`, B: `x9${b}` });
      expectHidden(
        parsed === undefined ? seen : shown(parsed) + seen,
        [`x9${a}`, `x9${b}`].filter((each) => each.isWellFormed()),
      );
      if (parsed === undefined) return;
      const { credentials } = parsed.objectStore.config as {
        credentials: { secretKey: { isEqualTo(text: string): boolean } };
      };
      expect(credentials.secretKey.isEqualTo(`x9${b}`)).toBe(true);
    }),
    { seed, numRuns: runs },
  );
});

test("text of any kind is a configuration or an error with its line", () => {
  const yamlish = fc.string({
    unit: fc.constantFrom(...tokens, "a", "b", "services", "catalog", "object_store", "\n    ", "1", "0x1"),
    maxLength: 60,
  });
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary" }), yamlish), (text) => {
      outcome(text, { A: "1" });
    }),
    { seed, numRuns: runs * 5 },
  );
});

const LENGTH = 250_000;
const variables = { A: "x".repeat(1000) };

test.each([
  ["nested lists", "[".repeat(LENGTH), /nested|missing/],
  ["nested maps", "{a: ".repeat(60_000), /nested|missing/],
  [
    "nested by indentation",
    Array.from({ length: 600 }, (_, depth) => `${" ".repeat(depth)}a:`).join("\n"),
    /nested deeper/,
  ],
  [
    "a bomb of aliases",
    Array.from(
      { length: 30 },
      (_, n) =>
        `a${n}: &a${n} [${
          n === 0
            ? "x"
            : Array(9)
                .fill(`*a${n - 1}`)
                .join(", ")
        }]`,
    ).join("\n"),
    /more than 20000 values/,
  ],
  ["an alias in itself", "a: &a [*a]", /refers to what it stands in/],
  [
    "a bomb of merge keys",
    `a: &a {${Array.from({ length: 9000 }, (_, n) => `k${n}: 1`).join(", ")}}\nb: {${"<<: *a, ".repeat(15_000)}}`,
    /more than 20000 values/,
  ],
  ["many keys", Array.from({ length: 30_000 }, (_, n) => `k${n}:`).join("\n"), /more than 20000 values/],
  ["many aliases", `a: &a 1\nb: [${"*a, ".repeat(60_000)}]`, /more than 20000 values/],
  ["many anchors", Array.from({ length: 18_000 }, (_, n) => `- &a${n} x`).join("\n"), /must hold a map/],
  ["a variable again and again", `a: [${`${reference("A")}, `.repeat(30_000)}]`, /too large/],
  ["many warnings' worth of keys", Array.from({ length: 15_000 }, (_, n) => `k${n}: 1`).join("\n"), /^$/],
  ["a long key", `${"k".repeat(LENGTH)}: 1`, /./],
  ["quotes", `a: "${'\\"'.repeat(LENGTH / 2)}"`, /^$/],
  ["errors", "a: b: c\n".repeat(30_000), /./],
] as const)("%s", (_name, text, reason) => {
  let said = "";
  try {
    const { warnings } = parseConfiguration(text, { file: "config.yaml", variables, drivers });
    expect(JSON.stringify(warnings).length).toBeLessThan(10_000);
  } catch (error) {
    expect(error).toMatchObject({ code: "CONFIG_INVALID" });
    said = String((error as StowageError).details.reason);
  }
  expect(said).toMatch(reason);
});

test.each([
  String.raw`credentials: {database: {user: u, password: "p9\udc00abcdef", host: h, port: 5432, name: d}}`,
  String.raw`credentials: {database: {db_connect: "postgresql://u:p9\ud800abcdef@h/d"}}`,
  String.raw`services: {catalog: {object_store: {storage_driver: {name: s3, config: {bucket: bbb, access_key: x, secret_key: "p9\ud800abcdef"}}}}}`,
  String.raw`services: {"\udc00": 1}`,
])("half of a character is refused: %s", (text) => {
  const { parsed, seen } = outcome(text);
  expect(parsed).toBeUndefined();
  expect(seen).toContain("half of a character");
  expect(seen).not.toContain("abcdef");
});

test("a secret with half of a character, as JSON may bring it, can be masked", () => {
  const half = String.raw`"p9\ud800abcdef"`;
  expect(new Secret(JSON.parse(half) as string).reveal()).toHaveLength(9);
  expect(maskSecrets(`the password is ${half}`)).toBe('the password is "********"');
});
