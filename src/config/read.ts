import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { StowageError } from "../errors/index.ts";
import { type Configuration, fileBytesMax } from "./configuration.ts";
import type { Environment } from "./environment.ts";
import type { StorageDriver } from "./store-sections.ts";

/**
 * Reads and checks a configuration file.
 * @throws StowageError `CONFIG_INVALID`
 */
export async function readConfiguration(
  file: string,
  environment: Environment["configuration"],
  drivers: readonly StorageDriver[],
): Promise<Configuration> {
  const text = await readText(file);
  if (text === undefined) {
    throw new StowageError("CONFIG_INVALID", { file, reason: "the file is not there" }, { hint: "check the path" });
  }
  const variables = { ...(await readVariables(environment)), ...environment.variables };
  // Loaded only where there is a file: the YAML parser and the schemas take longer than the rest of a short command.
  const { parseConfiguration } = await import("./parse.ts");
  return parseConfiguration(text, { file, variables, drivers });
}

/**
 * The sections of a configuration file that choose stores, as they are written there: variables stay `${NAME}`, aliases are followed, comments are left
 * out. With `isMasked`, what is secret is replaced by asterisks; the name of a variable is no secret.
 * @throws StowageError `CONFIG_INVALID`
 */
export async function readStorageText(configuration: Configuration, isMasked: boolean): Promise<string> {
  const { file } = configuration;
  const text = file === undefined ? "" : await readText(file);
  if (text === undefined)
    throw new StowageError("CONFIG_INVALID", { reason: "the file has gone", ...(file === undefined ? {} : { file }) });
  const { storageText } = await import("./storage-text.ts");
  return storageText(text, configuration, isMasked);
}

/** The first of the default files that is there. */
export async function findConfigurationFile({
  defaultFiles,
}: Environment["configuration"]): Promise<string | undefined> {
  for (const file of defaultFiles) {
    try {
      const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
      await handle.close();
      return file;
    } catch (error) {
      // One that is there but can't be read is an error when it is read: its settings must not be passed over in silence.
      if (!isMissing(error)) return file;
    }
  }
  return undefined;
}

/** `NAME=value` lines of `ANCHORE_ENV_FILE`, as far as the names begin with `ANCHORE`; the environment itself wins. */
async function readVariables({ variables }: Environment["configuration"]): Promise<Record<string, string>> {
  const file = variables.ANCHORE_ENV_FILE;
  if (!file) return {};
  const text = await readText(file);
  if (text === undefined) {
    throw new StowageError("CONFIG_INVALID", { key: "ANCHORE_ENV_FILE", file, reason: "the file is not there" });
  }
  const found = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const [, name, value = ""] = /^\s*(ANCHORE\w*)\s*=(.*)$/s.exec(line) ?? [];
    if (name !== undefined) found.set(name, unquoted(value.trim()));
  }
  return Object.fromEntries(found);
}

function unquoted(value: string): string {
  const [, , inner] = /^(["'])(.*)\1$/s.exec(value) ?? [];
  return inner ?? value;
}

/** `undefined` when there is no such file. */
async function readText(file: string): Promise<string | undefined> {
  const fault = (reason: string, cause?: unknown) =>
    new StowageError("CONFIG_INVALID", { file, reason }, cause === undefined ? {} : { cause });
  try {
    await using handle = await open(file, "r");
    const status = await handle.stat();
    // A pipe is how a shell hands over what another program prints.
    if (!status.isFile() && !status.isFIFO()) throw fault("it is not a file");
    const chunks: Buffer[] = [];
    for (let length = 0; ; ) {
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(64 * 1024));
      if (bytesRead === 0) break;
      length += bytesRead;
      if (length > fileBytesMax) throw fault(`it is larger than ${fileBytesMax} bytes`);
      chunks.push(buffer.subarray(0, bytesRead));
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    if (error instanceof StowageError) throw error;
    if (isMissing(error)) return undefined;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ERR_ENCODING_INVALID_ENCODED_DATA") throw fault("it is not UTF-8");
    throw fault(`it can't be read: ${code ?? "unknown error"}`, error);
  }
}

function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
}
