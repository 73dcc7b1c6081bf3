import { homedir } from "node:os";
import { join } from "node:path";

/** What stowage takes from the environment. This is the only place where it is read. */
export interface Environment {
  /** `STOWAGE_DATA_DIR`, or the platform's data directory. */
  readonly dataDirectory: string;
  /** `STOWAGE_DB_CONNECT`: URL of the user's own PostgreSQL. */
  readonly databaseUrl: string | undefined;
  readonly configuration: {
    /** `STOWAGE_CONFIG`: path of the configuration file. */
    readonly file: string | undefined;
    /** Where it is looked for when nobody names it; the first that is there counts. */
    readonly defaultFiles: readonly string[];
    /** The whole environment, for `${NAME}` in that file. */
    readonly variables: Readonly<Record<string, string | undefined>>;
  };
  /** `STOWAGE_LIMITS`: settings separated by commas. */
  readonly limits: readonly string[];
  /** `STOWAGE_LOG_LEVEL`; default `warn`. */
  readonly logLevel: string;
  readonly temporaryDirectory: string;
  /** `NO_COLOR` and `FORCE_COLOR`; `undefined` when each output stream decides for itself. @see https://no-color.org */
  readonly color: boolean | undefined;
  /** `TERM` names a terminal that can't move its cursor. */
  readonly isTerminalDumb: boolean;
  /** Variables that decide where registry credentials are looked for. */
  readonly credentials: {
    readonly home: string;
    readonly dockerConfigDirectory: string | undefined;
    readonly dockerAuthConfig: string | undefined;
    readonly registryAuthFile: string | undefined;
    readonly runtimeDirectory: string | undefined;
    /** Search path for `docker-credential-*` programs. */
    readonly path: string | undefined;
  };
}

export function readEnvironment(env: NodeJS.ProcessEnv = process.env, platform = process.platform): Environment {
  const home = env.HOME || homedir();
  return {
    dataDirectory: env.STOWAGE_DATA_DIR || defaultDataDirectory(env, platform, home),
    databaseUrl: env.STOWAGE_DB_CONNECT || undefined,
    configuration: {
      file: env.STOWAGE_CONFIG || undefined,
      defaultFiles: defaultConfigurationFiles(env, platform, home),
      variables: env,
    },
    limits: (env.STOWAGE_LIMITS ?? "").split(",").filter((part) => part.trim() !== ""),
    logLevel: env.STOWAGE_LOG_LEVEL || "warn",
    temporaryDirectory: env.TMPDIR || "/tmp",
    color: env.NO_COLOR ? false : env.FORCE_COLOR ? !["0", "false"].includes(env.FORCE_COLOR) : undefined,
    isTerminalDumb: env.TERM === "dumb",
    credentials: {
      home,
      dockerConfigDirectory: env.DOCKER_CONFIG || undefined,
      dockerAuthConfig: env.DOCKER_AUTH_CONFIG || undefined,
      registryAuthFile: env.REGISTRY_AUTH_FILE || undefined,
      runtimeDirectory: env.XDG_RUNTIME_DIR || undefined,
      path: env.PATH,
    },
  };
}

function defaultDataDirectory(env: NodeJS.ProcessEnv, platform: string, home: string): string {
  // The embedded PostgreSQL never runs as root, and the user it runs as can't enter root's home.
  if (platform !== "darwin" && process.getuid?.() === 0) return "/var/lib/stowage";
  if (platform === "darwin") return join(home, "Library", "Application Support", "stowage");
  return join(env.XDG_DATA_HOME || join(home, ".local", "share"), "stowage");
}

/** The user's own, then the machine's. */
function defaultConfigurationFiles(env: NodeJS.ProcessEnv, platform: string, home: string): readonly string[] {
  const own =
    env.XDG_CONFIG_HOME ||
    (platform === "darwin" ? join(home, "Library", "Application Support") : join(home, ".config"));
  return [own, "/etc"].map((directory) => join(directory, "stowage", "config.yaml"));
}
