import type { AnalysisReport } from "../analysis/index.ts";
import { isCode, StowageError, toStowageError } from "../errors/index.ts";
import { listTags, parseReference, type Reference, type SourceOptions } from "../oci/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import type { AnalysisOutcome, SeveralProgress, SourceSelection } from "./application.ts";

/**
 * Images that are under way at once: while some ask their registry, wait for the disk or are merged, the layers of others keep the threads busy. From a
 * disk two are enough; what more of them cost is small, since layers and merging have bounds of their own.
 */
const imagesAtOnce = 8;

/** A source that is still to be analysed, or what is known of it already. */
type Planned = string | AnalysisOutcome;

/**
 * The sources that a selection means, each once, in the order in which they are named first. A repository whose tags can't be listed has failed.
 * @throws StowageError `LIMIT_EXCEEDED`
 */
export async function planSources(
  { sources, repositories }: SourceSelection,
  options: SourceOptions,
  call: Call,
): Promise<readonly Planned[]> {
  const planned = new Map<string, Planned>();
  const add = (source: string) => {
    const key = keyOf(source);
    if (!planned.has(key)) planned.set(key, source);
    const max = options.limits.sourcesMax;
    if (planned.size <= max) return;
    const hint = "analyse them in parts, or raise it: --limit sourcesMax=NUMBER";
    throw new StowageError(
      "LIMIT_EXCEEDED",
      { limit: "sourcesMax", max, where: "the sources of one command" },
      { hint },
    );
  };
  for (const source of sources) add(source);
  for (const repository of new Set(repositories)) {
    const found = await tagsOf(repository, options, call);
    if (found instanceof StowageError) {
      planned.set(`all tags ${repository}`, { source: repository, outcome: "failed", error: found });
    } else for (const source of found) add(source);
  }
  return [...planned.values()];
}

/** The full tags of a repository, or why they can't be listed. */
async function tagsOf(text: string, options: SourceOptions, call: Call): Promise<readonly string[] | StowageError> {
  try {
    const repository = repositoryOf(text);
    const tags = await listTags(repository, options, call);
    const { domain, path } = repository;
    if (tags.length > 0) return tags.map((tag) => `${domain}/${path}:${tag}`);
    return new StowageError("IMAGE_NOT_FOUND", { image: text }, { hint: "the repository has no tags" });
  } catch (error) {
    throwIfAborted(call);
    return toStowageError(error);
  }
}

/** @throws StowageError `INPUT_INVALID` */
function repositoryOf(text: string): Reference {
  const reference = parseReference(text);
  // A tag that is not typed is `latest`.
  const isTagged = reference.digest !== undefined || text.endsWith(`:${reference.tag}`);
  if (!isTagged) return reference;
  const reason = "all tags are those of a repository, which is named without one";
  const hint = "for one image: stowage analyze SOURCE";
  throw new StowageError("INPUT_INVALID", { what: "repository", value: text.slice(0, 300), reason }, { hint });
}

/** Two ways to write one reference have the same key. */
function keyOf(source: string): string {
  if (/^(?:oci|oci-archive|docker-archive):/.test(source)) return source;
  try {
    const { domain, path, tag, digest } = parseReference(source);
    return `${domain}/${path}:${tag ?? ""}@${digest ?? ""}`;
  } catch (error) {
    // What is wrong with it is told when it is opened.
    if (isCode(error, "INPUT_INVALID")) return source;
    throw error;
  }
}

/**
 * Analyses each source, several at once, whatever becomes of the others. What is left when the call is aborted, or when there is no database any more,
 * is not done. Returns the outcomes in the order of the sources.
 */
export async function analyzeEach(
  planned: readonly Planned[],
  analyze: (source: string, call: Call) => Promise<AnalysisReport>,
  progress: SeveralProgress,
  call: Call,
): Promise<readonly AnalysisOutcome[]> {
  const outcomes = planned.map(
    (each): AnalysisOutcome => (isSource(each) ? { source: each, outcome: "notDone" } : each),
  );
  progress.plan(planned.length);
  for (const outcome of planned) if (!isSource(outcome)) progress.endSource(outcome);
  const waiting = planned.entries();
  let isOver = false;
  const work = async () => {
    for (const [position, source] of waiting) {
      if (isOver || call.signal.aborted) return;
      if (!isSource(source)) continue;
      const outcome = await outcomeOf(source, analyze, call);
      if (outcome.outcome === "failed" && isCode(outcome.error, "DB_UNREACHABLE")) isOver = true;
      outcomes[position] = outcome;
      progress.endSource(outcome);
    }
  };
  await Promise.all(Array.from({ length: imagesAtOnce }, work));
  return outcomes;
}

async function outcomeOf(
  source: string,
  analyze: (source: string, call: Call) => Promise<AnalysisReport>,
  call: Call,
): Promise<AnalysisOutcome> {
  try {
    return { source, outcome: "analyzed", report: await analyze(source, call) };
  } catch (error) {
    if (call.signal.aborted) return { source, outcome: "notDone" };
    return { source, outcome: "failed", error: toStowageError(error) };
  }
}

function isSource(planned: Planned): planned is string {
  return typeof planned === "string";
}
