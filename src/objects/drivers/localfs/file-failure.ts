import { dirname } from "node:path";
import { StowageError } from "../../../errors/index.ts";
import type { PhysicalKey } from "../../driver.ts";

export const driverName = "localfs";

/** What was being done when the file system refused. */
export interface Attempt {
  readonly operation: "open" | "put" | "get" | "delete" | "purge" | "list" | "capabilities";
  readonly key?: PhysicalKey;
  readonly path: string;
  /** Whether it changes names in the directory of `path`, rather than reading `path`. */
  readonly isChange: boolean;
}

/** The system's name of a failure, `ENOENT` for example. */
export function errnoOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** A failure of the file system with what it means for the one who asked. What is a StowageError already stays as it is. */
export function fileFailure(error: unknown, { operation, key, path, isChange }: Attempt): unknown {
  const errno = errnoOf(error);
  if (error instanceof StowageError || errno === undefined) return error;
  const about = { driver: driverName, operation, ...(key === undefined ? {} : { key }) };
  const reason = `${errno} at ${path}`;
  switch (errno) {
    case "ENOSPC":
    case "EDQUOT":
      return new StowageError(
        "BACKEND_FULL",
        { ...about, reason },
        {
          cause: error,
          hint:
            errno === "ENOSPC" ? `free space or inodes on the file system of ${dirname(path)}` : "raise the disk quota",
        },
      );
    case "EACCES":
    case "EPERM":
    case "EROFS": {
      const resource = isChange ? dirname(path) : path;
      const permission = isChange ? "write and search the directory" : "read";
      return new StowageError(
        "BACKEND_DENIED",
        { driver: driverName, operation, permission, resource, reason },
        {
          cause: error,
          hint:
            errno === "EROFS"
              ? `mount the file system of ${resource} for writing`
              : `give the user that runs stowage the right to ${permission}: ${resource}`,
        },
      );
    }
    case "ELOOP":
      return new StowageError("BACKEND_DENIED", {
        driver: driverName,
        operation,
        resource: path,
        reason: "a symbolic link is not followed",
      });
    case "EISDIR":
      return new StowageError(
        "BACKEND_DENIED",
        { driver: driverName, operation, resource: path, reason: "a directory lies where a file of stowage's was" },
        { cause: error, hint: `remove the directory: ${path}` },
      );
    case "ESTALE":
    case "ENODEV":
    case "ENOTCONN":
    case "EHOSTDOWN":
    case "ETIMEDOUT":
      return new StowageError("BACKEND_UNREACHABLE", { driver: driverName, operation, reason }, { cause: error });
    default:
      return new StowageError("BACKEND_FAILED", { ...about, reason }, { cause: error });
  }
}

/** Does one call of the file system, and says what its failure means. */
export async function attempt<T>(what: Attempt, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileFailure(error, what);
  }
}
