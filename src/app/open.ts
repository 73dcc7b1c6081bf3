import type { AnalysisReport, Analyzer, ImageName } from "../analysis/index.ts";
import { type Database, openDatabase } from "../db/index.ts";
import { type DetailsOf, isCode, StowageError } from "../errors/index.ts";
import { type AnalysisDocument, type ImageRecord, Images, listImages } from "../images/index.ts";
import type { PackageType } from "../layer/index.ts";
import { bytesToText, type MergedEntry, type Package, pathText } from "../layer/index.ts";
import { guard, openObjectStore } from "../objects/index.ts";
import {
  formatPlatform,
  type ImageSource,
  openSource,
  parsePlatform,
  parseReference,
  type ResolvedImage,
} from "../oci/index.ts";
import type { Call } from "../runtime/index.ts";
import { Ahead } from "./ahead.ts";
import type {
  AnalysisOutcome,
  AnalyzeOptions,
  AnalyzeSeveralOptions,
  Application,
  ApplicationOptions,
  DeletionReport,
  FileRecord,
  ImageContent,
  ImageDetails,
  ImageSummary,
  PackageRecord,
  SourceSelection,
} from "./application.ts";
import { sectionsOf } from "./sections.ts";
import { analyzeEach, planSources } from "./several.ts";
import { StoreKeeper } from "./store-keeper.ts";
import { nameOfProcess, type StoreShare, shareBackends, shareStore, takeStore } from "./store-lock.ts";

/** Until accounts come, everything belongs to this one. */
const account = "admin";

/** How much a command cleans up at its end, so that nobody has to. */
const maintenanceLimit = 100;

/** Loaded when needed: commands that only read must not wait for catalogers and thread pools. */
const analysis = () => import("../analysis/index.ts");

/** Opens the database (starting the embedded one if need be), the object store and all that stands on them. */
export async function openApplication(options: ApplicationOptions, call: Call): Promise<Application> {
  await using opening = new AsyncDisposableStack();
  const ahead = opening.use(new Ahead(options, call));
  const applicationName = nameOfProcess(options.purpose);
  const whileWaiting = (isToBeMade: boolean) => ahead.begin(isToBeMade);
  const database = opening.use(await openDatabase(options.database, { applicationName, whileWaiting }, call));
  ahead.begin(false);
  const isAlone = options.isAlone ?? false;
  const sharing: Promise<StoreShare> = isAlone ? takeStore(database, call) : shareStore(database, call);
  sharing.catch(() => {});
  opening.defer(async () => await (await sharing.catch(() => undefined))?.[Symbol.asyncDispose]());
  const store = await openObjectStore({ database, sections: await sectionsOf(options.configuration), guard, isAlone });
  const share = await sharing;
  const reach = opening.use(await shareBackends(database, store.reachable, call));
  const application = new OpenApplication(database, store, { share, reach }, options, ahead);
  opening.move();
  return application;
}

type OpenStore = Awaited<ReturnType<typeof openObjectStore>>;

class OpenApplication implements Application {
  readonly #database: Database;
  readonly #store: OpenStore;
  readonly #share: StoreShare;
  readonly #reach: AsyncDisposable;
  readonly #images: Images;
  readonly #options: ApplicationOptions;
  readonly #ahead: Ahead;
  readonly objectStorage: StoreKeeper;
  #analyzer: Analyzer | undefined;

  constructor(
    database: Database,
    store: OpenStore,
    { share, reach }: { readonly share: StoreShare; readonly reach: AsyncDisposable },
    options: ApplicationOptions,
    ahead: Ahead,
  ) {
    this.#ahead = ahead;
    this.#share = share;
    this.#reach = reach;
    this.#database = database;
    this.#store = store;
    this.#images = new Images(database, store);
    this.#options = options;
    this.objectStorage = new StoreKeeper(database, store, account, options.isAlone ?? false);
  }

  async analyze(source: string, options: AnalyzeOptions, caller: Call): Promise<AnalysisReport> {
    const call = this.#whileShared(caller);
    await this.objectStorage.tellElsewhere(call);
    const report = await this.#analyzeOne(source, options, await this.#ready(), call);
    await this.#maintain(call);
    return report;
  }

  async analyzeSeveral(
    selection: SourceSelection,
    options: AnalyzeSeveralOptions,
    caller: Call,
  ): Promise<readonly AnalysisOutcome[]> {
    const call = this.#whileShared(caller);
    const { limits, credentials, temporaryDirectory } = this.#options;
    const { progress, insecure, platform } = options;
    if (platform !== undefined) parsePlatform(platform);
    await this.objectStorage.tellElsewhere(call);
    const opening = { insecure, credentials, limits, temporaryDirectory, progress };
    const planned = await planSources(selection, opening, call);
    const analyzer = await this.#ready();
    await using _threads = analyzer.hold();
    const analyzeOne = (source: string, under: Call) =>
      this.#analyzeOne(source, { ...options, progress: progress.beginSource(source) }, analyzer, under);
    const outcomes = await analyzeEach(planned, analyzeOne, progress, call);
    if (!call.signal.aborted) await this.#maintain(call);
    return outcomes;
  }

  /** What is stored while somebody migrates offline would stay where nothing is looked for afterwards. */
  #whileShared(call: Call): Call {
    return { ...call, signal: AbortSignal.any([call.signal, this.#share.signal]) };
  }

  async #ready(): Promise<Analyzer> {
    const { limits, temporaryDirectory } = this.#options;
    const { Analyzer } = await analysis();
    const threads = await this.#ahead.threads;
    this.#analyzer ??= new Analyzer(this.#database, this.#store, limits, temporaryDirectory, threads);
    return this.#analyzer;
  }

  async #analyzeOne(text: string, options: AnalyzeOptions, analyzer: Analyzer, call: Call): Promise<AnalysisReport> {
    const { platform: wish, insecure, progress } = options;
    const platform = wish === undefined ? undefined : parsePlatform(wish);
    const name = options.name === undefined ? undefined : nameOf(options.name);
    const ahead = this.#ahead.take({ source: text, ...options }, call);
    const { limits, credentials, temporaryDirectory } = this.#options;
    const opening = { insecure, credentials, limits, temporaryDirectory, progress };
    await using opened = await (ahead ?? openSource(text, opening, call));
    const request = {
      account,
      platform,
      progress,
      nameFor: (image: ResolvedImage) =>
        name ?? (image.suggestedName === undefined ? undefined : nameOf(image.suggestedName)),
    };
    const analyze = (source: ImageSource) => analyzer.analyze({ ...request, source }, call);
    return await this.#ahead.layerCache.before(opened, analyze, progress, call);
  }

  async *listImages(): AsyncGenerator<ImageSummary> {
    for await (const image of listImages(this.#database.sql, account)) yield summaryOf(image);
  }

  async getImage(text: string, call: Call): Promise<ImageDetails> {
    const image = await this.#find(text);
    const { facts, notes } = await this.#documentOf(image, call);
    const layers = await this.#images.layersOf(image);
    const users = facts.other.users;
    return {
      ...summaryOf(image),
      parentDigest: image.parentDigest,
      layerList: layers.map(({ layerKey, ...layer }) => ({ ...layer, isFetched: layerKey !== undefined })),
      notes: notes.map(({ code, layer, path, text: say }) => ({ code, layer, path, text: say })),
      notesLeftOut: facts.notesLeftOut,
      suidFiles: facts.suidFiles,
      users: Array.isArray(users) ? users.length : 0,
      config: facts.config,
    };
  }

  async packagesOf(text: string, types: readonly PackageType[], call: Call): Promise<ImageContent<PackageRecord>> {
    const image = await this.#find(text);
    const document = await this.#documentOf(image, call);
    const packages = document.packages.filter(({ type }) => types.includes(type));
    return { digest: image.digest, items: this.#withFiles(image, packages, call) };
  }

  async *#withFiles(image: ImageRecord, packages: readonly Package[], call: Call): AsyncGenerator<PackageRecord> {
    const images = this.#images;
    let lists: ReturnType<Images["ownedFiles"]> | undefined;
    for (const record of packages) {
      if (record.owned.length === 0) yield record;
      else {
        const files = async function* () {
          lists ??= images.ownedFiles(image, packages, call).catch((error: unknown) => {
            throw withAdvice(error, image);
          });
          yield* (await lists)(record);
        };
        yield { ...record, files: files() };
      }
    }
  }

  async filesOf(text: string, call: Call): Promise<ImageContent<FileRecord>> {
    const image = await this.#find(text);
    return { digest: image.digest, items: this.#files(image, call) };
  }

  async *#files(image: ImageRecord, call: Call): AsyncGenerator<FileRecord> {
    try {
      for await (const entry of this.#images.files(image, call)) yield fileRecord(entry);
    } catch (error) {
      throw withAdvice(error, image);
    }
  }

  async deleteImage(text: string, call: Call): Promise<DeletionReport> {
    const image = await this.#find(text);
    const bytes = await this.#images.storedBytes(image, call);
    const isRemoved = await this.#database.transaction((tx) => this.#images.remove(tx, image), call);
    await this.#maintain(call);
    return { digest: image.digest, fullTags: image.fullTags, bytesReclaimed: isRemoved ? bytes : 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#analyzer?.[Symbol.asyncDispose]();
    await this.#ahead[Symbol.asyncDispose]();
    await this.#store[Symbol.asyncDispose]();
    await this.#reach[Symbol.asyncDispose]();
    await this.#share[Symbol.asyncDispose]();
    await this.#database[Symbol.asyncDispose]();
  }

  async #documentOf(image: ImageRecord, call: Call): Promise<AnalysisDocument> {
    try {
      return await this.#images.document(image, call);
    } catch (error) {
      throw withAdvice(error, image);
    }
  }

  #find(text: string): Promise<ImageRecord> {
    return this.#images.get(account, text, fullTagOf(text));
  }

  /**
   * A bounded share of the upkeep: layers that nobody needs are retired, what was retired long enough ago is deleted. The command's own work is done
   * when this runs, so a failure is a warning: the next command tries again.
   */
  async #maintain(call: Call): Promise<void> {
    try {
      const { retireUnusedLayers } = await analysis();
      await retireUnusedLayers(this.#database, this.#store, { limit: maintenanceLimit, isAlone: false }, call);
      const { failures } = await this.#store.reap(maintenanceLimit, call);
      for (const { backend, error } of failures) call.log.warn({ err: error, backend }, "upkeep failed");
    } catch (error) {
      call.log.warn({ err: error }, "upkeep failed");
    }
  }
}

/** What is damaged is known already, and what to do about it. */
function withAdvice(error: unknown, { damage, fullTags, digest }: ImageRecord): unknown {
  if (damage === undefined || !isCode(error, ...damageCodes)) return error;
  const hint = `${damage}, with: stowage analyze ${fullTags[0] ?? digest}`;
  return new StowageError(error.code, error.details as DetailsOf<typeof error.code>, { cause: error, hint });
}

const damageCodes = ["OBJECT_NOT_FOUND", "OBJECT_DIGEST_MISMATCH", "BACKEND_KEY_MISSING"] as const;

function fullTagOf(text: string): string | undefined {
  try {
    return nameOf(text).fullTag;
  } catch (error) {
    if (isCode(error, "INPUT_INVALID")) return undefined;
    throw error;
  }
}

/** @throws StowageError `INPUT_INVALID` */
function nameOf(text: string): ImageName {
  const { domain, path, tag = "latest" } = parseReference(text);
  return { registry: domain, repository: path, tag, fullTag: `${domain}/${path}:${tag}` };
}

function summaryOf(image: ImageRecord): ImageSummary {
  const { os, architecture, variant, distro, distroVersion } = image;
  return {
    digest: image.digest,
    imageId: image.imageId,
    fullTags: image.fullTags,
    platform: formatPlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) }),
    distribution: distro === undefined ? undefined : [distro, distroVersion].filter(Boolean).join(" "),
    layers: image.layerCount,
    files: image.files,
    packages: image.packageCounts,
    blobBytes: image.blobBytes,
    fileBytes: image.fileBytes,
    damage: image.damage,
    analyzedAt: image.analyzedAt,
  };
}

function fileRecord({ key, node, layer, isImplied }: MergedEntry): FileRecord {
  const { type, digests } = node;
  if (type === "hardlink") throw new TypeError("a hard link is resolved when layers are merged");
  const hex = (start: number, end: number) => Buffer.from((digests ?? "").slice(start, end), "latin1").toString("hex");
  return {
    path: pathText(key),
    type,
    mode: node.mode.toString(8).padStart(4, "0"),
    uid: node.uid,
    gid: node.gid,
    sizeBytes: node.size,
    ...(type === "symlink" && node.link !== undefined ? { linkTarget: bytesToText(node.link) } : {}),
    ...(type === "file" && node.link !== undefined ? { hardlinkOf: bytesToText(node.link.replaceAll("\0", "/")) } : {}),
    ...(type === "char" || type === "block" ? { device: `${node.deviceMajor}:${node.deviceMinor}` } : {}),
    ...(digests === undefined ? {} : { md5: hex(0, 16), sha1: hex(16, 36), sha256: hex(36, 68) }),
    ...(isImplied ? {} : { mtime: isoTime(node.mtime) }),
    layer,
    ...(node.xattrs === undefined ? {} : { xattrs: base64Values(node.xattrs) }),
    ...(isImplied ? { isImplied: true } : {}),
  };
}

/** Times that no calendar has (a hostile or broken archive) are shown as the nearest that it has. */
function isoTime(seconds: number): string {
  const most = 8.64e12;
  return new Date(Math.max(-most, Math.min(most, seconds)) * 1000).toISOString().replace(".000Z", "Z");
}

function base64Values(xattrs: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(xattrs).map(([name, value]) => [name, Buffer.from(value, "latin1").toString("base64")]),
  );
}
