import { tmpdir } from "node:os";
import { defaultLimits, type Limits } from "../../src/config/index.ts";
import type { SourceOptions } from "../../src/oci/index.ts";
import { silentProgress } from "../../src/runtime/index.ts";

/** Options for `openSource` that find no credentials but those given, with what was told in `told`. */
export function testSourceOptions(
  parts: { readonly limits?: Partial<Limits>; readonly dockerAuthConfig?: unknown } & Partial<
    Omit<SourceOptions, "limits">
  > = {},
): SourceOptions & { readonly told: string[] } {
  const told: string[] = [];
  const { limits, dockerAuthConfig, ...rest } = parts;
  return {
    insecure: false,
    credentials: {
      home: "/nonexistent",
      dockerConfigDirectory: undefined,
      dockerAuthConfig: dockerAuthConfig === undefined ? undefined : JSON.stringify(dockerAuthConfig),
      registryAuthFile: undefined,
      runtimeDirectory: undefined,
      path: undefined,
    },
    temporaryDirectory: tmpdir(),
    progress: { ...silentProgress, tell: (text) => told.push(text) },
    ...rest,
    limits: { ...defaultLimits, ...limits },
    told,
  };
}
