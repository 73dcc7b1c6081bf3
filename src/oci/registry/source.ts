import { StowageError } from "../../errors/index.ts";
import type { Reference } from "../reference.ts";
import type { SourceOptions } from "../source-options.ts";
import type { ImageSource } from "../types.ts";

export function openRegistry(reference: Reference, _options: SourceOptions): ImageSource {
  throw new StowageError("REGISTRY_UNREACHABLE", { host: reference.domain, reason: "comes with the next commit" });
}
