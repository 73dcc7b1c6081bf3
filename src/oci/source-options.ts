import type { Environment, Limits } from "../config/index.ts";
import type { Progress } from "../runtime/index.ts";

/** How sources are opened. */
export interface SourceOptions {
  /** Plain HTTP and bad certificates are accepted of the registry. Loopback may always be plain. */
  readonly insecure: boolean;
  /** Where registry credentials are looked for. */
  readonly credentials: Environment["credentials"];
  readonly limits: Limits;
  /** For the one spill file of a compressed archive; it has no name while it is used. */
  readonly temporaryDirectory: string;
  readonly progress: Progress;
}
