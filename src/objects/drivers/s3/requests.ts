import { hash } from "node:crypto";
import type { PhysicalKey } from "../../driver.ts";
import type { Request } from "./failures.ts";

const permissions = {
  put: "s3:PutObject",
  get: "s3:GetObject",
  delete: "s3:DeleteObject",
  list: "s3:ListBucket",
  open: "s3:ListBucket",
  create: "s3:CreateBucket",
  "abort upload": "s3:AbortMultipartUpload",
  "list uploads": "s3:ListBucketMultipartUploads",
} as const;

export type Operation = keyof typeof permissions;

/** What a request is for, with the permission that it needs. */
export function requestFor(operation: Operation, object?: string, key?: PhysicalKey): Request {
  return { operation, permission: permissions[operation], object, key };
}

/** The object of a physical key: two digits of fan-out keep directories small at servers that store files. In byte order as the keys are. */
export function objectOf(prefix: string, key: string): string {
  return `${prefix}${nameOf(key)}`;
}

/** The object without the prefix: nothing in it has to be escaped in a path. */
export function nameOf(key: string): string {
  return `${key.slice(0, 2)}/${key}`;
}

const keyShape = /^([0-9a-f]{2})\/(\1[0-9a-f]{30})$/;

/** The key of an object that a driver with this prefix wrote, else undefined. */
export function keyOf(prefix: string, object: string): PhysicalKey | undefined {
  if (!object.startsWith(prefix)) return undefined;
  return keyShape.exec(object.slice(prefix.length))?.[2] as PhysicalKey | undefined;
}

export function sha256(bytes: Buffer): Buffer {
  return hash("sha256", bytes, "buffer");
}

const fanOuts = Array.from({ length: 256 }, (_, index) => index.toString(16).padStart(2, "0"));

/**
 * Where a listing goes on after an object, whoever wrote that: what can't be a driver's with this prefix is skipped, for a bucket may hold millions of
 * objects of others. `undefined` when none of a driver's can come any more.
 */
export function markerAfter(prefix: string, object: string): string | undefined {
  if (!object.startsWith(prefix)) return object;
  const rest = object.slice(prefix.length);
  const fanOut = fanOuts.find((each) => `${each}/g` > rest);
  if (fanOut === undefined) return undefined;
  return `${fanOut}/` > rest ? `${prefix}${fanOut}/` : object;
}

interface Hookable {
  readonly middlewareStack: { add(hook: never, options: never): void };
}

/** Hands the signature the digest that is known already, which the SDK would compute again. */
export function withContentDigest<C extends Hookable>(command: C, digest: Buffer): C {
  const hook = (next: (args: HookArguments) => unknown) => (args: HookArguments) => {
    args.request.headers["x-amz-content-sha256"] = digest.toString("hex");
    return next(args);
  };
  command.middlewareStack.add(hook as never, { step: "build", name: "contentDigest", override: true } as never);
  return command;
}

/** With the older digest of its body, which some servers still ask for; the SDK sends a newer one only. */
export function withContentMd5<C extends Hookable>(command: C): C {
  const hook = (next: (args: HookArguments) => unknown) => (args: HookArguments) => {
    const { headers, body } = args.request;
    if (body !== undefined) headers["content-md5"] = hash("md5", body, "base64");
    return next(args);
  };
  command.middlewareStack.add(hook as never, { step: "build", name: "contentMd5", override: true } as never);
  return command;
}

interface HookArguments {
  readonly request: { readonly headers: Record<string, string>; readonly body?: string | Uint8Array };
}
