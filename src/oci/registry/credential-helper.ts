import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { z } from "zod";
import { Secret } from "../../config/index.ts";
import { type Call, throwIfAborted } from "../../runtime/index.ts";
import type { Credentials } from "./credentials.ts";

const TIMEOUT_MS = 30_000;
const OUTPUT_BYTES_MAX = 64 * 1024;
/** What every helper prints when it has nothing. @see docker/docker-credential-helpers, credentials/error.go */
const NOT_FOUND = "credentials not found in native keychain";

const answerSchema = z.object({ Username: z.string(), Secret: z.string() });

/** A helper that could not be asked. The message never holds what it printed. */
export class HelperFailure extends Error {}

/**
 * Asks `docker-credential-NAME get` for a server. `undefined` if it has nothing.
 * @param path the search path; only its absolute directories count
 * @throws HelperFailure
 */
export async function askHelper(
  name: string,
  server: string,
  path: string | undefined,
  call: Call,
): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9_.-]{1,100}$/.test(name)) throw new HelperFailure("its name is not valid");
  const program = await findProgram(`docker-credential-${name}`, path ?? "");
  if (program === undefined) throw new HelperFailure(`there is no program docker-credential-${name}`);
  const { exitCode, output } = await run(program, server, call);
  if (exitCode !== 0) {
    if (output.toString("utf8").trim() === NOT_FOUND) return undefined;
    throw new HelperFailure(`it ended with exit code ${exitCode}`);
  }
  let answer: z.output<typeof answerSchema>;
  try {
    answer = answerSchema.parse(JSON.parse(output.toString("utf8")));
  } catch {
    // The cause would quote what the helper printed.
    throw new HelperFailure("its answer is not valid");
  }
  if (answer.Username === "<token>") return { kind: "identity", token: new Secret(answer.Secret) };
  if (answer.Username === "" && answer.Secret === "") return undefined;
  return { kind: "basic", username: answer.Username, password: new Secret(answer.Secret) };
}

async function findProgram(name: string, path: string): Promise<string | undefined> {
  for (const directory of path.split(delimiter)) {
    if (!isAbsolute(directory)) continue;
    const candidate = join(directory, name);
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not here: the next directory may have it.
    }
  }
  return undefined;
}

function run(program: string, server: string, call: Call): Promise<{ exitCode: number | string; output: Buffer }> {
  throwIfAborted(call);
  return new Promise((resolve, reject) => {
    // A helper may need the user's environment (a keychain's socket), so it inherits it.
    const child = spawn(program, ["get"], { stdio: ["pipe", "pipe", "ignore"] });
    const chunks: Buffer[] = [];
    let size = 0;
    const end = (error: Error) => {
      child.kill("SIGKILL");
      child.stdout.destroy();
      settle();
      reject(error);
    };
    const timer = setTimeout(() => end(new HelperFailure(`no answer within ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
    const abort = () => {
      try {
        throwIfAborted(call);
      } catch (error) {
        end(error as Error);
      }
    };
    const settle = () => {
      clearTimeout(timer);
      call.signal.removeEventListener("abort", abort);
    };
    call.signal.addEventListener("abort", abort, { once: true });
    child.stdout.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > OUTPUT_BYTES_MAX) end(new HelperFailure("it prints too much"));
      else chunks.push(chunk);
    });
    child.on("error", () => end(new HelperFailure("it can't be started")));
    child.on("close", (code, signal) => {
      settle();
      resolve({ exitCode: code ?? signal ?? "unknown", output: Buffer.concat(chunks) });
    });
    // A helper that doesn't read its input closes the pipe: its answer tells what matters.
    child.stdin.on("error", () => undefined);
    child.stdin.end(server);
  });
}
