import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TLSSocket } from "node:tls";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { databaseTls } from "../../test/db/tls.ts";
import { untrustedTls } from "../../test/registry/tls.ts";
import type { DatabaseSettings } from "../config/index.ts";
import { createCall } from "../runtime/index.ts";
import { openDatabase } from "./index.ts";

let directory: string;
let authority: string;
let stranger: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-tls-"));
  authority = join(directory, "authority.pem");
  stranger = join(directory, "stranger.pem");
  await writeFile(authority, databaseTls.authority);
  await writeFile(stranger, untrustedTls.cert);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const SSL_REQUEST = 80877103;

/** Begins as PostgreSQL does, and refuses every user: how the connection was protected is all that is asked. */
class Doorman implements AsyncDisposable {
  /** Of each connection that came as far as naming its user. */
  readonly visits: ("plain" | "tls")[] = [];
  readonly #server = createServer((socket) => this.#greet(socket));
  readonly #hasTls: boolean;
  /** SQLSTATE for those who come without, and with, TLS. */
  readonly #answers: Readonly<Record<"plain" | "tls", string>>;

  constructor(hasTls: boolean, answers: Readonly<Record<"plain" | "tls", string>>) {
    this.#hasTls = hasTls;
    this.#answers = answers;
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    if (typeof address !== "object" || address === null) throw new Error("no address");
    return address.port;
  }

  #greet(socket: Socket): void {
    socket.on("error", () => {});
    socket.once("data", (first) => {
      if (first.readInt32BE(4) !== SSL_REQUEST) return this.#refuse(socket, "plain");
      if (!this.#hasTls) {
        socket.write("N");
        return;
      }
      socket.write("S");
      const secure = new TLSSocket(socket, { isServer: true, cert: databaseTls.certificate, key: databaseTls.key });
      secure.on("error", () => {});
      secure.once("data", () => this.#refuse(secure, "tls"));
    });
  }

  #refuse(socket: Socket, kind: "plain" | "tls"): void {
    this.visits.push(kind);
    const fields = Buffer.from(`SFATAL\0VFATAL\0C${this.#answers[kind]}\0Mnot you\0\0`);
    const header = Buffer.alloc(5);
    header.write("E");
    header.writeInt32BE(fields.length + 4, 1);
    socket.end(Buffer.concat([header, fields]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const WRONG_PASSWORD = "28P01";
const NO_RULE = "28000";

interface World {
  readonly host?: string;
  readonly hasTls?: boolean;
  readonly answers?: Readonly<Record<"plain" | "tls", string>>;
}

/** How connections came in, and the code of the failure: `ACCESS_DENIED` where the server was believed and asked. */
async function visit(settings: DatabaseSettings, options = "", world: World = {}) {
  await using doorman = new Doorman(
    world.hasTls ?? true,
    world.answers ?? { plain: WRONG_PASSWORD, tls: WRONG_PASSWORD },
  );
  const port = await doorman.listen();
  const url = `postgresql://u:s3cret@${world.host ?? "localhost"}:${port}/d${options}`;
  const failure = await openDatabase({ kind: "server", url, settings }, {}, createCall()).catch(
    (error: unknown) => error,
  );
  expect(String(failure)).not.toContain("s3cret");
  return { visits: doorman.visits.join(" "), code: (failure as { code?: string }).code };
}

const believed = (visits: string) => ({ visits, code: "ACCESS_DENIED" });
const turnedAway = { visits: "", code: "DB_UNREACHABLE" };

describe("sslmode", () => {
  test("disable: never", async () => {
    expect(await visit({ sslMode: "disable" })).toEqual(believed("plain"));
  });

  test("prefer, and nothing said: where the server can", async () => {
    expect(await visit({})).toEqual(believed("tls"));
    expect(await visit({ sslMode: "prefer" })).toEqual(believed("tls"));
    expect(await visit({}, "", { hasTls: false })).toEqual(believed("plain"));
    expect(await visit({}, "", { answers: { tls: NO_RULE, plain: WRONG_PASSWORD } })).toEqual(believed("tls plain"));
  });

  test("allow: where the server wants it", async () => {
    expect(await visit({ sslMode: "allow" })).toEqual(believed("plain"));
    expect(await visit({ sslMode: "allow" }, "", { answers: { plain: NO_RULE, tls: WRONG_PASSWORD } })).toEqual(
      believed("plain tls"),
    );
  });

  test("require: always, whoever the server is; with a root certificate as verify-ca", async () => {
    expect(await visit({ sslMode: "require" })).toEqual(believed("tls"));
    expect(await visit({ sslMode: "require" }, "", { hasTls: false })).toEqual(turnedAway);
    expect(await visit({ sslMode: "require", sslRootCertificate: authority })).toEqual(believed("tls"));
    expect(await visit({ sslMode: "require", sslRootCertificate: stranger })).toEqual(turnedAway);
    expect(await visit({ sslMode: "require", sslRootCertificate: "system" })).toEqual(believed("tls"));
  });

  test("verify-ca: who signed counts, the name does not", async () => {
    const settings = { sslMode: "verify-ca", sslRootCertificate: authority } as const;
    expect(await visit(settings)).toEqual(believed("tls"));
    expect(await visit(settings, "", { host: "127.0.0.1" })).toEqual(believed("tls"));
    expect(await visit({ sslMode: "verify-ca", sslRootCertificate: stranger })).toEqual(turnedAway);
    expect(await visit({ sslMode: "verify-ca" })).toEqual(turnedAway);
    expect(await visit(settings, "", { hasTls: false })).toEqual(turnedAway);
  });

  test("verify-full: the name counts as well", async () => {
    const settings = { sslMode: "verify-full", sslRootCertificate: authority } as const;
    expect(await visit(settings)).toEqual(believed("tls"));
    expect(await visit(settings, "", { host: "127.0.0.1" })).toEqual(turnedAway);
    expect(await visit({ sslMode: "verify-full", sslRootCertificate: "system" })).toEqual(turnedAway);
    expect(await visit(settings, "", { hasTls: false })).toEqual(turnedAway);
  });

  test("in the URL means the same; settings win", async () => {
    expect(await visit({}, "?sslmode=disable")).toEqual(believed("plain"));
    expect(await visit({}, "?sslmode=require")).toEqual(believed("tls"));
    expect(await visit({}, `?sslmode=verify-full&sslrootcert=${authority}`)).toEqual(believed("tls"));
    expect(await visit({}, "?sslmode=verify-full")).toEqual(turnedAway);
    expect(await visit({}, "?ssl=true", { hasTls: false })).toEqual(turnedAway);
    expect(await visit({ sslMode: "disable" }, "?sslmode=verify-full")).toEqual(believed("plain"));
  });

  test("ssl: true is at least require, and weakens nothing", async () => {
    const required = { isSslRequired: true };
    expect(await visit(required)).toEqual(believed("tls"));
    expect(await visit(required, "?sslmode=disable")).toEqual(believed("tls"));
    expect(await visit(required, "", { hasTls: false })).toEqual(turnedAway);
    expect(await visit(required, "?sslmode=verify-full")).toEqual(turnedAway);
    expect(await visit(required, `?sslmode=verify-full&sslrootcert=${authority}`, { host: "127.0.0.1" })).toEqual(
      turnedAway,
    );
  });

  test("files that can't be used are errors of the configuration", async () => {
    const missing = { sslMode: "verify-full", sslRootCertificate: join(directory, "none.pem") } as const;
    expect(await visit(missing)).toEqual({ visits: "", code: "CONFIG_INVALID" });
    await writeFile(join(directory, "text.pem"), "not a certificate");
    expect(await visit({ ...missing, sslRootCertificate: join(directory, "text.pem") })).toEqual({
      visits: "",
      code: "CONFIG_INVALID",
    });
  });
});

const url = process.env.STOWAGE_TEST_POSTGRES_URL;
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("postgres");

if (url !== undefined) {
  describe("an external PostgreSQL with TLS", () => {
    let admin: pg.Client;

    beforeAll(async () => {
      admin = new pg.Client({ connectionString: url });
      await admin.connect();
      // The server writes the files itself: it must own them, and nobody else may read the key.
      for (const [name, text] of [
        ["stowage-test.crt", databaseTls.certificate],
        ["stowage-test.key", databaseTls.key],
      ] as const) {
        await admin.query(
          `copy (select unnest(string_to_array('${text}', E'\\n'))) to program 'umask 077; cat > ${name}'`,
        );
      }
      await admin.query("alter system set ssl_cert_file = 'stowage-test.crt'");
      await admin.query("alter system set ssl_key_file = 'stowage-test.key'");
      await admin.query("alter system set ssl = on");
      await admin.query("select pg_reload_conf()");
    });

    afterAll(async () => {
      for (const name of ["ssl", "ssl_cert_file", "ssl_key_file"]) await admin.query(`alter system reset ${name}`);
      await admin.query("select pg_reload_conf()");
      await admin.end();
    });

    test.each([
      [{ sslMode: "disable" }, false],
      [{}, true],
      [{ sslMode: "require" }, true],
      [{ sslMode: "verify-full" }, true],
    ] as const)("%j", async (settings, isEncrypted) => {
      const location = Object.assign(new URL(url), { hostname: "localhost" });
      const root = { sslRootCertificate: authority };
      await expect
        .poll(async () => (await admin.query("show ssl")).rows[0], { timeout: 60_000 })
        .toEqual({ ssl: "on" });
      await using database = await openDatabase(
        { kind: "server", url: location.href, settings: { ...settings, ...("sslMode" in settings ? root : {}) } },
        {},
        createCall(),
      );
      const { rows } = await database.sql
        .selectNoFrom((select) => select.fn<boolean>("pg_backend_pid").as("pid"))
        .execute()
        .then(([row]) => admin.query("select ssl from pg_stat_ssl where pid = $1", [row?.pid]));
      expect(rows).toEqual([{ ssl: isEncrypted }]);
    });
  });
} else if (isRequired) {
  test("an external PostgreSQL with TLS", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names postgres, but STOWAGE_TEST_POSTGRES_URL is not set");
  });
} else {
  test.skip("an external PostgreSQL with TLS: SKIPPED, set STOWAGE_TEST_POSTGRES_URL to a superuser's URL of an empty database", () => {});
}
