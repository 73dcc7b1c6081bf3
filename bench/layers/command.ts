import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Measurement, measure, waitForDatabaseEnd } from "../measure.ts";
import { stowageCommand } from "../stowage.ts";

/** Where one run of stowage keeps what it keeps. */
export interface Place {
  /** The embedded database. */
  readonly data: string;
  /** `config.yaml`. */
  readonly config: string;
}

interface PlaceOptions {
  /** Holds the layer cache; without it there is none. */
  readonly cache?: string;
}

/** Enough for everything that is measured here: what a limit costs is not the question. */
const cacheGigabytes = 10;

/** A place below `directory`. Its database is made, so that no run pays for that. */
export async function makePlace(directory: string, { cache }: PlaceOptions = {}): Promise<Place> {
  const temporary = cache ?? join(directory, "tmp");
  await Promise.all([mkdir(directory, { recursive: true }), mkdir(temporary, { recursive: true })]);
  const analyzer = { layer_cache_enable: cache !== undefined, layer_cache_max_gigabytes: cacheGigabytes };
  const config = join(directory, "config.yaml");
  // JSON is YAML.
  await writeFile(config, JSON.stringify({ tmp_dir: temporary, services: { analyzer } }));
  const place = { data: join(directory, "data"), config };
  await measure([...stowageCommand, "image", "list", ...optionsOf(place)]);
  await waitForDatabaseEnd(place.data);
  return place;
}

/** One process analyses all sources. */
export async function analyze(place: Place, sources: readonly string[]): Promise<Measurement> {
  const measurement = await measure(await analyzeCommand(place, sources), { dataDirectory: place.data });
  await waitForDatabaseEnd(place.data);
  return measurement;
}

/** `progress` comes to standard error, as lines of JSON. */
export async function analyzeCommand(
  place: Place,
  sources: readonly string[],
  { progress = false }: { readonly progress?: boolean } = {},
): Promise<readonly string[]> {
  const options = progress ? optionsOf(place).filter((option) => option !== "--quiet") : optionsOf(place);
  const [only, ...others] = sources;
  if (only !== undefined && others.length === 0) return [...stowageCommand, "analyze", only, ...options];
  const list = `${place.config}.sources`;
  await writeFile(list, `${sources.join("\n")}\n`);
  return [...stowageCommand, "analyze", "--from-file", list, ...options];
}

const contentTypes = ["files", "os", "npm", "python"] as const;

/** Digests of what is known of an image: its file list and its packages, as JSON. */
export async function digestContents(place: Place, image: string): Promise<string> {
  const digests: string[] = [];
  for (const type of contentTypes) {
    const [program = "", ...parameters] = [...stowageCommand, "image", "content", image, type, ...optionsOf(place)];
    const child = spawn(program, parameters, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise<number | null>((resolve, reject) => child.once("error", reject).once("exit", resolve));
    const hash = createHash("sha256");
    for await (const chunk of child.stdout) hash.update(chunk as Buffer);
    const code = await ended;
    if (code !== 0) throw new Error(`image content ${image} ${type} ended with ${code}`);
    digests.push(`${type} ${hash.digest("hex")}`);
  }
  await waitForDatabaseEnd(place.data);
  return digests.join(", ");
}

function optionsOf({ data, config }: Place): readonly string[] {
  return ["--config", config, "--data-dir", data, "--output", "json", "--quiet"];
}
