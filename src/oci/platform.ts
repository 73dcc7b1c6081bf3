import { StowageError } from "../errors/index.ts";
import type { Platform } from "./types.ts";

const architectures: Readonly<Record<string, string>> = {
  i386: "386",
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
  armhf: "arm",
  armel: "arm",
};

/** A platform in containerd's normal form. @see containerd/platforms, database.go */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const spoken = platform.architecture.toLowerCase();
  const architecture = architectures[spoken] ?? spoken;
  let variant = (platform.variant ?? "").toLowerCase();
  if (spoken === "armhf") variant = "v7";
  else if (spoken === "armel") variant = "v6";
  else if (architecture === "arm") variant = variant === "" ? "v7" : variant.replace(/^(?=[5-8]$)/, "v");
  else if (architecture === "amd64" && variant === "v1") variant = "";
  else if (architecture === "arm64" && /^v?8(?:\.0)?$/.test(variant)) variant = "";
  return {
    os: os === "macos" ? "darwin" : os,
    architecture,
    ...(variant === "" ? {} : { variant }),
    ...(platform.osVersion === undefined ? {} : { osVersion: platform.osVersion }),
  };
}

/**
 * `os/architecture[/variant]` as people type it, in normal form.
 * @throws StowageError `INPUT_INVALID`
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  const [os = "", architecture = "", variant] = parts;
  if (parts.length < 2 || parts.length > 3 || !parts.every((part) => /^[A-Za-z0-9_.-]{1,64}$/.test(part))) {
    throw new StowageError(
      "INPUT_INVALID",
      { what: "platform", value: text.slice(0, 200), reason: "expected os/architecture or os/architecture/variant" },
      { hint: "examples: linux/amd64, linux/arm64, linux/arm/v7" },
    );
  }
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}

export function formatPlatform(platform: Platform): string {
  const version = platform.osVersion === undefined ? "" : ` (${platform.osVersion})`;
  return `${platform.os}/${platform.architecture}${platform.variant === undefined ? "" : `/${platform.variant}`}${version}`;
}

/** The platform whose images this machine runs: `linux` whatever the host, as container engines do on other systems. */
export function machinePlatform(architecture: string = process.arch): Platform {
  const names: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", mipsel: "mipsle" };
  return normalizePlatform({ os: "linux", architecture: names[architecture] ?? architecture });
}

/**
 * How well `offered` meets `wish`: 0 is exact, higher is worse, `undefined` not at all.
 * Both in normal form. @see containerd/platforms, compare.go, `platformVector`
 */
export function platformRank(wish: Platform, offered: Platform): number | undefined {
  if (wish.os !== offered.os) return undefined;
  if (wish.osVersion !== undefined && wish.osVersion !== offered.osVersion) return undefined;
  const rank = accepted(wish).indexOf(`${offered.architecture}/${offered.variant ?? ""}`);
  return rank === -1 ? undefined : rank;
}

/** What a wish accepts, best first, as `architecture/variant`. */
function accepted(wish: Platform): readonly string[] {
  const list = [`${wish.architecture}/${wish.variant ?? ""}`];
  const arm32 = (from: number) => {
    for (let version = from; version >= 5; version--) list.push(`arm/v${version}`);
  };
  const version = /^v(\d{1,2})(?:\.(\d{1,2}))?$/.exec(wish.variant ?? "");
  const major = version ? Number(version[1]) : undefined;
  switch (wish.architecture) {
    case "amd64":
      for (let lower = (major ?? 1) - 1; lower >= 1; lower--) list.push(lower === 1 ? "amd64/" : `amd64/v${lower}`);
      list.push("386/");
      break;
    case "arm":
      if (major !== undefined) arm32(major - 1);
      break;
    case "arm64": {
      if (wish.variant !== undefined && major !== 8 && major !== 9) break;
      let minor = Number(version?.[2] ?? 0);
      if (major === 9) {
        for (let lower = minor - 1; lower >= 0; lower--) list.push(lower === 0 ? "arm64/v9" : `arm64/v9.${lower}`);
        // v9.0 is v8.5, and so on up to v9.4, which is v8.9.
        minor = Math.min(minor + 5, 9) + 1;
      }
      for (let lower = minor - 1; lower >= 0; lower--) list.push(lower === 0 ? "arm64/" : `arm64/v8.${lower}`);
      arm32(8);
      break;
    }
  }
  return list;
}
