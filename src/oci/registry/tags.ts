import { z } from "zod";
import { StowageError } from "../../errors/index.ts";
import type { Call } from "../../runtime/index.ts";
import { parseJson } from "../json.ts";
import { formatReference, isTag, type Reference, registryName } from "../reference.ts";
import type { SourceOptions } from "../source-options.ts";
import { RegistryClient } from "./client.ts";
import { refusal } from "./refusal.ts";
import { retrying } from "./retry.ts";
import { defaultSettings, type RegistrySettings } from "./settings.ts";
import { discard, type HttpAnswer, readBody } from "./transport.ts";

/** Asked for; registries give fewer, and some all that they have. */
const PAGE_TAGS = 1000;
const PAGE_BYTES_MAX = 8 * 1024 * 1024;
const PAGES_MAX = 5000;
const TAGS_MAX = 250_000;
const LINK_LENGTH_MAX = 8 * 1024;

const pageSchema = z.object({ tags: z.array(z.string()).nullish() });

interface Page {
  readonly tags: readonly string[];
  /** Path and query of the next one. */
  readonly next: string | undefined;
}

/**
 * All tags of a repository: see `listTags`.
 * @see OCI distribution-spec, "Listing Tags"
 */
export async function readTags(
  reference: Reference,
  options: SourceOptions,
  call: Call,
  settings: RegistrySettings = defaultSettings,
): Promise<readonly string[]> {
  const { repository } = registryName(reference);
  await using client = new RegistryClient(reference, options, settings);
  const tags = new Set<string>();
  const invalid = new Set<string>();
  let path: string | undefined = `/v2/${repository}/tags/list?n=${PAGE_TAGS}`;
  for (let pages = 1; path !== undefined; pages++) {
    if (pages > PAGES_MAX) throw tooMany("tagPagesMax", PAGES_MAX, reference);
    const at: string = path;
    const page: Page | undefined = await retrying(
      () => readPage(client, at, reference, settings, call),
      settings,
      options.progress,
      call,
    );
    if (page === undefined) throw new StowageError("IMAGE_NOT_FOUND", { image: formatRepository(reference) });
    const before = tags.size + invalid.size;
    for (const tag of page.tags) (isTag(tag) ? tags : invalid).add(tag);
    const count = tags.size + invalid.size;
    if (count > TAGS_MAX) throw tooMany("tagsMax", TAGS_MAX, reference);
    if (page.next !== undefined && count === before) {
      // Whoever follows such links goes in a circle.
      throw invalidAnswer(reference, "a page of its list of tags brings nothing new and names another page");
    }
    path = page.next;
  }
  if (invalid.size > 0) {
    options.progress.tell(`${formatRepository(reference)}: left out tags whose names are not valid: ${invalid.size}`);
  }
  return [...tags].sort();
}

/** One page of the list; `undefined` where there is no such repository. */
async function readPage(
  client: RegistryClient,
  path: string,
  reference: Reference,
  settings: RegistrySettings,
  call: Call,
): Promise<Page | undefined> {
  const answer = await client.get(path, { accept: "application/json" }, call);
  if (answer.status === 404) {
    await discard(answer, call);
    return undefined;
  }
  if (answer.status !== 200) throw await refusal(answer, registryName(reference).repository, call);
  const bound = {
    limit: "tagPageBytesMax",
    max: PAGE_BYTES_MAX,
    timeoutMs: settings.documentTimeoutMs,
    what: `the tags of ${formatRepository(reference)}`,
  };
  const body = await readBody(answer, bound, call);
  return { tags: parsePage(body, reference), next: nextPage(answer, reference) };
}

function parsePage(body: Buffer, reference: Reference): readonly string[] {
  let page: z.output<typeof pageSchema>;
  try {
    page = parseJson(body, pageSchema, "the list of tags");
  } catch (cause) {
    throw invalidAnswer(reference, "its list of tags is not valid", cause);
  }
  // A repository whose tags were all deleted has `null`.
  return page.tags ?? [];
}

/** The path and query that `Link: <…>; rel="next"` names; it must lead to the registry itself. @see RFC 8288, 3 */
function nextPage(answer: HttpAnswer, reference: Reference): string | undefined {
  const target = findNextLink(answer.headers.link);
  if (target === undefined) return undefined;
  const url = URL.parse(target, answer.url.href);
  if (url === null || target.length > LINK_LENGTH_MAX) {
    throw invalidAnswer(reference, "the link to the next page of its tags is not valid");
  }
  // Registries behind a proxy name themselves by http:, so the scheme says nothing: it is asked as it was before.
  if (url.host !== answer.url.host || url.username !== "" || url.password !== "") {
    throw invalidAnswer(reference, "the next page of its tags is said to be at another host");
  }
  return `${url.pathname}${url.search}`;
}

/** The target of the first link whose relation is `next`. */
export function findNextLink(headers: string | readonly string[] | undefined): string | undefined {
  for (const header of typeof headers === "string" ? [headers] : (headers ?? [])) {
    const text = header.slice(0, 2 * LINK_LENGTH_MAX);
    // A target holds no `>`, a quoted value of a parameter may hold anything but a quote.
    for (const [, target, parameters = ""] of text.matchAll(/<([^<>]*)>((?:[^<",]|"[^"]*")*)/g)) {
      const relation = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))/i.exec(parameters);
      const relations = (relation?.[1] ?? relation?.[2] ?? "").toLowerCase().split(/\s+/);
      if (relations.includes("next")) return target;
    }
  }
  return undefined;
}

function formatRepository({ domain, path }: Reference): string {
  return formatReference({ domain, path, tag: undefined, digest: undefined });
}

function tooMany(limit: string, max: number, reference: Reference): StowageError {
  return new StowageError("LIMIT_EXCEEDED", { limit, max, where: `the tags of ${formatRepository(reference)}` });
}

function invalidAnswer(reference: Reference, reason: string, cause?: unknown): StowageError {
  return new StowageError("REGISTRY_ANSWER_INVALID", { host: registryName(reference).host, reason }, { cause });
}
