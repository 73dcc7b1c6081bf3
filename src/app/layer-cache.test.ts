import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { AnalysisReport } from "../analysis/index.ts";
import { type Configuration, defaultConfiguration } from "../config/index.ts";
import { StowageError, temporaryFailure } from "../errors/index.ts";
import type { ImageSource } from "../oci/index.ts";
import { type Call, createCall, type Progress, silentProgress } from "../runtime/index.ts";
import { findLayerCache, SharedLayerCache } from "./layer-cache.ts";

let tmp: string;
beforeEach(async () => {
  tmp = await mkdtemp(join(tmpdir(), "stowage-app-cache-"));
});
afterEach(() => rm(tmp, { recursive: true, force: true }));

const place = () => join(tmp, "anchore_layercache");

function configured(layerCache: Configuration["layerCache"], isSaid = false): Configuration {
  const source = { kind: "file", file: "c", line: 1, variables: [] } as const;
  const values = isSaid ? [{ key: "services.analyzer.layer_cache_max_gigabytes", value: 1, source }] : [];
  return { ...defaultConfiguration, layerCache, values };
}
const on = configured({ enabled: true, bytesMax: 3e9 });
const off = configured({ enabled: false, bytesMax: 1e9 });

function sourceOf(isAuthority: boolean): ImageSource {
  const unused = () => Promise.reject(new Error("nothing is read here"));
  return {
    description: "a source",
    resolve: unused,
    layers: { isAuthority, open: unused, openFile: unused, has: unused, recheck: unused },
    [Symbol.asyncDispose]: async () => {},
  };
}

/** An analysis that finds out what it was given. */
async function analyzed(cache: SharedLayerCache, source: ImageSource, progress: Progress, call: Call) {
  let given: ImageSource | undefined;
  const analyze = async (each: ImageSource) => {
    given = each;
    return {} as AnalysisReport;
  };
  const { layerCache } = await cache.before(source, analyze, progress, call);
  return { source: given, layerCache };
}

function listening(): { readonly progress: Progress; readonly told: string[] } {
  const told: string[] = [];
  return { told, progress: { ...silentProgress, tell: (text) => told.push(text) } };
}

describe("of an application", () => {
  const call = createCall();

  it.each([
    ["it is off", off, true],
    ["the source is on this machine", on, false],
  ])("nothing is done where %s", async (_why, configuration, isAuthority) => {
    await using cache = new SharedLayerCache({ configuration, temporaryDirectory: tmp });
    const original = sourceOf(isAuthority);
    const { source, layerCache } = await analyzed(cache, original, silentProgress, call);
    expect(source).toBe(original);
    expect(layerCache).toBeUndefined();
    expect(await readdir(tmp)).toEqual([]);
  });

  it("stands before each registry, opened once", async () => {
    const temporaryDirectory = relative(process.cwd(), tmp);
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory });
    expect(await readdir(tmp)).toEqual([]);
    const original = sourceOf(true);
    const both = await Promise.all(
      [original, sourceOf(true)].map((each) => analyzed(cache, each, silentProgress, call)),
    );
    for (const { source, layerCache } of both) {
      expect(source?.layers.isAuthority).toBe(true);
      expect(source?.layers).not.toBe(original.layers);
      expect(layerCache).toEqual({ hits: 0, bytesSaved: 0 });
    }
    // Each process that has it open has a file there.
    expect(await readdir(join(place(), "owners"))).toHaveLength(1);
    expect(both[0]?.source?.description).toBe("a source");
    await expect(both[0]?.source?.resolve(undefined, call)).rejects.toThrow("nothing is read here");
  });

  it("says once that it can't be used", async () => {
    await writeFile(place(), "");
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
    const { told, progress } = listening();
    for (let image = 0; image < 3; image++) {
      const { layerCache } = await analyzed(cache, sourceOf(true), progress, call);
      expect(layerCache).toEqual({ hits: 0, bytesSaved: 0 });
    }
    expect(told).toEqual([expect.stringMatching(/^the layer cache .* can't be used: .*; layers are read without it$/)]);
  });

  it("that one analysis was stopped meanwhile is nothing to the next", async () => {
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
    const stop = new AbortController();
    const stopped = analyzed(cache, sourceOf(true), silentProgress, createCall({ signal: stop.signal }));
    stop.abort(new Error("stopped"));
    await stopped.catch(() => undefined);
    const { layerCache } = await analyzed(cache, sourceOf(true), silentProgress, call);
    expect(layerCache).toEqual({ hits: 0, bytesSaved: 0 });
  });

  it("gives way where the disk has no room for both", async () => {
    const blob = join(place(), "sha256", "ab".repeat(32));
    await mkdir(join(place(), "sha256"), { recursive: true });
    await writeFile(blob, "what another image has left");
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
    const { told, progress } = listening();
    const original = sourceOf(true);
    const full = temporaryFailure(Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }), tmp);
    const analyses: ImageSource[] = [];
    const analyze = async (source: ImageSource) => {
      analyses.push(source);
      // As it comes from a thread.
      if (source !== original) throw StowageError.deserialize(full.serialize());
      return {} as AnalysisReport;
    };
    const both = [0, 1].map(() => cache.before(original, analyze, progress, call));
    expect(await Promise.all(both)).toEqual([0, 1].map(() => ({ layerCache: { hits: 0, bytesSaved: 0 } })));
    expect(analyses.filter((source) => source === original)).toHaveLength(2);
    await expect(stat(blob)).rejects.toThrow("ENOENT");
    expect(told).toEqual([expect.stringMatching(/^there is no room beside the layer cache .*: it is emptied/)]);
    // Nor does it come back.
    expect((await analyzed(cache, original, progress, call)).source).toBe(original);
  });

  it("gives way for an image of this machine, if there is anything to give", async () => {
    const full = temporaryFailure(Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }), tmp);
    let analyses = 0;
    const analyze = async () => {
      if (++analyses % 2 === 1) throw full;
      return {} as AnalysisReport;
    };
    {
      await using none = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
      await expect(none.before(sourceOf(false), analyze, silentProgress, call)).rejects.toBe(full);
    }
    analyses = 0;
    await mkdir(place());
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
    expect(await cache.before(sourceOf(false), analyze, silentProgress, call)).toEqual({});
    expect(analyses).toBe(2);
  });

  it.each([
    ["another failure", new StowageError("LAYER_TAR_INVALID", { layer: "l", offset: 0, reason: "r" })],
    ["a directory that is not there", temporaryFailure(Object.assign(new Error("ENOENT: x"), { code: "ENOENT" }))],
  ])("does not give way for %s", async (_what, failure) => {
    await using cache = new SharedLayerCache({ configuration: on, temporaryDirectory: tmp });
    const { told, progress } = listening();
    let analyses = 0;
    const analyze = async () => {
      analyses++;
      throw failure;
    };
    await expect(cache.before(sourceOf(true), analyze, progress, call)).rejects.toBe(failure);
    expect({ analyses, told }).toEqual({ analyses: 1, told: [] });
  });
});

describe("for those who look after it", () => {
  const call = createCall();

  it("is not made by looking for it", async () => {
    for (const temporaryDirectory of [tmp, join(tmp, "none"), join(place(), "deeper")]) {
      await using found = await findLayerCache({ configuration: on, temporaryDirectory }, call);
      expect(found.cache).toBeUndefined();
      expect(found).toMatchObject({ isEnabled: true, bytesMax: 3e9 });
    }
    expect(await readdir(tmp)).toEqual([]);
  });

  it.each([
    ["on", on, 3e9],
    ["off, with a size", configured({ enabled: false, bytesMax: 5e9 }, true), 5e9],
    ["off, without a size: it takes nothing from others", off, undefined],
  ])("has the limit of a configuration that says one: %s", async (_what, configuration, limit) => {
    await mkdir(place());
    await using found = await findLayerCache({ configuration, temporaryDirectory: tmp }, call);
    const stats = await found.cache?.stats(call);
    expect(stats && found.limitOf(stats)).toBe(limit);
    expect(found.directory).toBe(place());
  });
});
