import { StowageError } from "../errors/index.ts";
import { findDigest } from "./digest.ts";
import type { Digest } from "./types.ts";

/**
 * The name of an image at a registry.
 * `path` stands as it was typed: `alpine` on docker.io stays `alpine`, and `library/` appears only in what is sent ({@link registryName}).
 */
export interface Reference {
  readonly domain: string;
  readonly path: string;
  /** `latest` when neither tag nor digest was given. */
  readonly tag: string | undefined;
  /** Decides over the tag where both are given. */
  readonly digest: Digest | undefined;
}

const DEFAULT_DOMAIN = "docker.io";
// @see distribution/reference, regexp.go
const label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const domainPattern = new RegExp(`^(?:${label}(?:\\.${label})*|\\[[0-9a-fA-F:]+\\])(?::[0-9]+)?$`);
const component = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;

/**
 * `[domain/]path[:tag][@digest]` with the defaults of docker.io.
 * @throws StowageError `INPUT_INVALID`
 */
export function parseReference(text: string): Reference {
  const refuse = (reason: string): never => {
    throw new StowageError(
      "INPUT_INVALID",
      { what: "image reference", value: text.slice(0, 300), reason },
      { hint: "examples: alpine:3.20, ghcr.io/owner/name@sha256:…, localhost:5000/name:1" },
    );
  };
  // The longest legal reference: path 255, tag 128, digest 135, and a host name.
  if (text.length > 1024) refuse("too long");
  const at = text.indexOf("@");
  const digest = at === -1 ? undefined : (findDigest(text.slice(at + 1)) ?? refuse("the digest after @ is not valid"));
  const name = at === -1 ? text : text.slice(0, at);
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const hasDomain = first === "localhost" || /[.:A-Z]/.test(first);
  const rest = hasDomain ? name.slice(slash + 1) : name;
  const colon = rest.lastIndexOf(":");
  const path = colon === -1 ? rest : rest.slice(0, colon);
  const tag = colon === -1 ? undefined : rest.slice(colon + 1);

  if (path === "") refuse("no image is named");
  if (/[A-Z]/.test(path)) refuse("the name must be in lower case");
  if (path.length > 255) refuse("the name is longer than 255 characters");
  if (!path.split("/").every((part) => component.test(part))) refuse("the name is not valid");
  if (!hasDomain && /^[0-9a-f]{64}$/.test(path)) refuse("a name of 64 hexadecimal digits is an image id, not a name");
  if (tag !== undefined && !tagPattern.test(tag)) refuse("the tag is not valid");
  let domain = DEFAULT_DOMAIN;
  if (hasDomain) {
    if (!domainPattern.test(first) || first.length > 255) refuse("the registry's host is not valid");
    const port = /:(\d+)$/.exec(first)?.[1];
    if (port !== undefined && (Number(port) > 65_535 || Number(port) === 0)) refuse("the port is not valid");
    domain = first.toLowerCase() === "index.docker.io" ? DEFAULT_DOMAIN : first;
  }
  return { domain, path, tag: tag ?? (digest === undefined ? "latest" : undefined), digest };
}

/** The reference in full: `docker.io/alpine:3.20`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.domain}/${reference.path}${tag}${digest}`;
}

/** Whether a registry may call a tag so. */
export function isTag(text: string): boolean {
  return tagPattern.test(text);
}

/** Where the registry's API is and what the repository is called there: `library/` and docker.io's API host come in here only. */
export function registryName(reference: Reference): { readonly host: string; readonly repository: string } {
  if (reference.domain !== DEFAULT_DOMAIN) return { host: reference.domain, repository: reference.path };
  const repository = reference.path.includes("/") ? reference.path : `library/${reference.path}`;
  return { host: "registry-1.docker.io", repository };
}

/**
 * A full tag (`docker.io/alpine:3.20`) out of a name that a tool wrote down. Tools write `docker.io/library/alpine:3.20` where a
 * person says `alpine:3.20`, so `library/` is taken away again. `undefined` if it names no tag, or is no reference at all.
 */
export function findFullTag(name: string): string | undefined {
  try {
    const reference = parseReference(name);
    if (reference.tag === undefined) return undefined;
    const path =
      reference.domain === DEFAULT_DOMAIN ? reference.path.replace(/^library\/(?=[^/]+$)/, "") : reference.path;
    return formatReference({ ...reference, path, digest: undefined });
  } catch (error) {
    if (error instanceof StowageError && error.code === "INPUT_INVALID") return undefined;
    throw error;
  }
}
