import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { buildImage } from "../../test/images/builder.ts";
import { startRegistry } from "../../test/registry/registry-server.ts";
import type { AnalysisReport } from "../analysis/index.ts";
import { defaultLimits, readEnvironment } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { createCall, silentProgress } from "../runtime/index.ts";
import type { AnalysisOutcome, SeveralProgress } from "./application.ts";
import { analyzeEach, planSources } from "./several.ts";

const call = createCall();
const { credentials } = readEnvironment({});
const options = {
  insecure: false,
  credentials,
  limits: { ...defaultLimits, sourcesMax: 5 },
  temporaryDirectory: tmpdir(),
  progress: silentProgress,
};

const plan = (sources: readonly string[], repositories: readonly string[] = []) =>
  planSources({ sources, repositories }, options, call);

describe("planSources", () => {
  it("keeps each source once, however it is written, in the order of first mention", async () => {
    const digest = `sha256:${"a".repeat(64)}`;
    expect(
      await plan(["b", "docker.io/a:latest", "a", "oci:./x", "oci:./x:1", "index.docker.io/b:latest", "oci:./x"]),
    ).toEqual(["b", "docker.io/a:latest", "oci:./x", "oci:./x:1"]);
    expect(await plan(["a:1", `a@${digest}`, `a:1@${digest}`, "A B", "A B"])).toHaveLength(4);
  });

  it("names all tags of repositories; one whose tags can't be listed has failed", async () => {
    await using registry = await startRegistry();
    registry.push("app", buildImage({ layers: [] }), "2", "1");
    const app = `${registry.host}/app`;
    const planned = await plan([`${app}:2`], [app, `${registry.host}/none`, app, `${app}:1`]);
    expect(planned).toMatchObject([
      `${app}:2`,
      `${app}:1`,
      { source: `${registry.host}/none`, outcome: "failed", error: { code: "IMAGE_NOT_FOUND" } },
      { source: `${app}:1`, outcome: "failed", error: { code: "INPUT_INVALID" } },
    ]);
  });

  it("counts those that are left when duplicates are gone", async () => {
    await expect(plan(["a", "b", "a", "c", "d", "e"])).resolves.toHaveLength(5);
    await expect(plan(["a", "b", "c", "d", "e", "f"])).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
      details: { limit: "sourcesMax", max: 5 },
    });
  });
});

describe("analyzeEach", () => {
  const report = {} as AnalysisReport;

  /** Notes what it is told. */
  function watch() {
    const ended: string[] = [];
    const planned: number[] = [];
    const progress: SeveralProgress = {
      ...silentProgress,
      plan: (sources) => planned.push(sources),
      beginSource: () => silentProgress,
      endSource: ({ source, outcome }) => ended.push(`${source} ${outcome}`),
    };
    return { ended, planned, progress };
  }
  const names = (count: number) => Array.from({ length: count }, (_, index) => `s${index}`);

  it("goes on whatever becomes of one, and tells of those that had failed before", async () => {
    const { ended, planned, progress } = watch();
    const failed: AnalysisOutcome = {
      source: "none",
      outcome: "failed",
      error: new StowageError("IMAGE_NOT_FOUND", { image: "none" }),
    };
    const analyze = async (source: string) => {
      if (source === "s1") throw new TypeError("x");
      return report;
    };
    const outcomes = await analyzeEach(["s0", failed, "s1", ...names(40).slice(2)], analyze, progress, call);
    expect(planned).toEqual([41]);
    expect(outcomes.slice(0, 4)).toMatchObject([
      { source: "s0", outcome: "analyzed" },
      failed,
      { source: "s1", outcome: "failed", error: { code: "INTERNAL_FAILURE" } },
      { source: "s2", outcome: "analyzed" },
    ]);
    expect(ended).toHaveLength(41);
    expect(ended[0]).toBe("none failed");
  });

  it("has only so many under way at once", async () => {
    let most = 0;
    let now = 0;
    const analyze = async () => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setImmediate(resolve));
      now--;
      return report;
    };
    await analyzeEach(names(100), analyze, watch().progress, call);
    expect(most).toBe(8);
  });

  it("begins no more when it is stopped, or when there is no database any more", async () => {
    const abort = new AbortController();
    const begun: string[] = [];
    const stopping = async (source: string) => {
      begun.push(source);
      if (source === "s10") abort.abort(new StowageError("INPUT_INTERRUPTED", {}));
      if (abort.signal.aborted) throw new Error("socket closed");
      return report;
    };
    const stopped = await analyzeEach(names(100), stopping, watch().progress, createCall({ signal: abort.signal }));
    expect(stopped.filter(({ outcome }) => outcome === "failed")).toEqual([]);
    expect(stopped.find(({ source }) => source === "s10")?.outcome).toBe("notDone");
    expect(begun.length).toBeLessThan(30);

    const lost = await analyzeEach(
      names(100),
      async () => {
        throw new StowageError("DB_UNREACHABLE", { database: "d" });
      },
      watch().progress,
      call,
    );
    expect(lost.filter(({ outcome }) => outcome === "failed")).toHaveLength(8);
    expect(lost.filter(({ outcome }) => outcome === "notDone")).toHaveLength(92);
  });
});
