import { open } from "node:fs/promises";
import { fromNodeProviderChain } from "@aws-sdk/credential-providers";
import { Secret } from "../../../config/index.ts";
import { messageOf, StowageError } from "../../../errors/index.ts";
import type { S3Credentials } from "./configuration.ts";
import { searchFailure } from "./failures.ts";

export interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
}

/** A provider that knows nothing yet: a new one looks anew, which is how keys that have become stale are replaced. */
export function createKeyProvider(credentials: S3Credentials): () => Promise<Keys> {
  if (credentials.kind === "keys") {
    return async () => ({
      accessKeyId: credentials.accessKey.reveal(),
      secretAccessKey: credentials.secretKey.reveal(),
    });
  }
  if (credentials.kind === "files") {
    return async () => ({
      accessKeyId: (await readSecret("access_key_file", credentials.accessKeyFile)).reveal(),
      secretAccessKey: (await readSecret("secret_key_file", credentials.secretKeyFile)).reveal(),
    });
  }
  // The metadata service of an instance is slow now and then, and its one answer decides everything.
  const search = fromNodeProviderChain({ timeout: 2000, maxRetries: 3 });
  return async () => {
    const keys = await search().catch((error: unknown) => {
      throw searchFailure(error);
    });
    // Revealed values are masked in every output.
    for (const value of [keys.secretAccessKey, keys.sessionToken]) if (value) new Secret(value).reveal();
    return keys;
  };
}

const secretBytesMax = 4096;

/** A mounted secret: one line. */
async function readSecret(key: string, path: string): Promise<Secret> {
  const text = (await readUpTo(key, path, secretBytesMax)).toString("utf8").trim();
  if (text === "") throw new StowageError("CONFIG_INVALID", { key, reason: `${path} is empty` });
  return new Secret(text);
}

/** @throws StowageError `CONFIG_INVALID` when the file can't be read or is larger */
export async function readUpTo(key: string, path: string, bytesMax: number): Promise<Buffer> {
  try {
    await using file = await open(path);
    const buffer = Buffer.alloc(bytesMax + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length);
      if (bytesRead === 0) return buffer.subarray(0, length);
      length += bytesRead;
    }
  } catch (error) {
    throw new StowageError("CONFIG_INVALID", { key, reason: messageOf(error) }, { cause: error });
  }
  throw new StowageError("CONFIG_INVALID", { key, reason: `${path} has more than ${bytesMax} bytes` });
}
