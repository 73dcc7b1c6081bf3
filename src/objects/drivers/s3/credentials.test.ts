import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { type Asked, type ModelServer, refusal, startModelServer } from "../../../../test/s3/model-server.ts";
import { maskSecrets } from "../../../config/index.ts";
import { createCall } from "../../../runtime/index.ts";
import { createPhysicalKey } from "../../index.ts";
import type { S3Configuration } from "./configuration.ts";
import { s3Driver } from "./index.ts";
import { openBucket } from "./open-bucket.ts";

const call = createCall();
let server: ModelServer;
let directory: string;

beforeEach(async () => {
  server = await startModelServer();
  directory = await mkdtemp(join(tmpdir(), "stowage-s3-credentials-"));
  // Nothing of this machine's own.
  for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) vi.stubEnv(name, undefined);
  vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", join(directory, "credentials"));
  vi.stubEnv("AWS_CONFIG_FILE", join(directory, "config"));
  vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
  return async () => {
    vi.unstubAllEnvs();
    await rm(directory, { recursive: true });
    await server[Symbol.asyncDispose]();
  };
});

async function open(credentials: Record<string, unknown> = { iamauto: true }) {
  const config = s3Driver.schema.parse({ ...credentials, url: server.url, bucket: "bucket" });
  return await openBucket(config as S3Configuration, {}, call);
}

function signedBy({ headers }: Asked): string {
  const id = /Credential=([^/]+)\//.exec(headers.authorization ?? "")?.[1];
  return [id, headers["x-amz-security-token"]].filter(Boolean).join(" ");
}

async function signers(credentials?: Record<string, unknown>): Promise<readonly string[]> {
  await using driver = await open(credentials);
  await failureOf(driver.get(createPhysicalKey(), undefined, call));
  return [...new Set(server.log.map(signedBy))];
}

interface Answer {
  readonly status?: number;
  readonly body: string;
}

/** A service that gives credentials away. */
async function serve(answer: (request: IncomingMessage, body: string) => Answer) {
  const service = createServer(async (request, response) => {
    const { status = 200, body } = answer(request, await text(request));
    response.writeHead(status, { "content-type": body.startsWith("<") ? "text/xml" : "application/json" }).end(body);
  });
  await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
  const address = service.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}`,
    async [Symbol.asyncDispose]() {
      service.closeAllConnections();
      await new Promise((resolve) => service.close(resolve));
    },
  };
}

const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString();

describe("given", () => {
  test("keys", async () => {
    expect(await signers({ access_key: "given-id", secret_key: "given-secret" })).toEqual(["given-id"]);
  });

  test("mounted secrets, with the newline that editors put at the end", async () => {
    await writeFile(join(directory, "id"), "mounted-id\n");
    await writeFile(join(directory, "secret"), "mounted-secret\n");
    const files = { access_key_file: join(directory, "id"), secret_key_file: join(directory, "secret") };
    expect(await signers(files)).toEqual(["mounted-id"]);
    expect(maskSecrets("mounted-secret")).not.toContain("mounted");
  });

  test("mounted secrets that are renewed are read again", async () => {
    await writeFile(join(directory, "id"), "old-id");
    await writeFile(join(directory, "secret"), "old-secret");
    await using driver = await open({
      access_key_file: join(directory, "id"),
      secret_key_file: join(directory, "secret"),
    });
    await writeFile(join(directory, "id"), "new-id");
    server.fault = (asked) =>
      signedBy(asked) === "old-id" ? { instead: refusal(403, "InvalidAccessKeyId") } : undefined;
    expect((await failureOf(driver.get(createPhysicalKey(), undefined, call))).code).toBe("BACKEND_KEY_MISSING");
    expect(signedBy(server.log.at(-1) as Asked)).toBe("new-id");
  });

  test.each([
    ["missing", undefined, /ENOENT/],
    ["empty", "\n", /is empty/],
    ["no secret at all", "x".repeat(5000), /more than 4096 bytes/],
  ])("a file that is %s", async (_, content, reason) => {
    await writeFile(join(directory, "id"), "id");
    if (content !== undefined) await writeFile(join(directory, "secret"), content);
    const files = { access_key_file: join(directory, "id"), secret_key_file: join(directory, "secret") };
    const error = await failureOf(open(files));
    expect(error).toMatchObject({ code: "CONFIG_INVALID", details: { key: "secret_key_file" } });
    expect(error.details.reason).toMatch(reason);
  });
});

describe("found, with iamauto", () => {
  test("in the environment", async () => {
    vi.stubEnv("AWS_ACCESS_KEY_ID", "environment-id");
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", "environment-secret");
    vi.stubEnv("AWS_SESSION_TOKEN", "environment-token");
    expect(await signers()).toEqual(["environment-id environment-token"]);
    expect(maskSecrets("environment-token environment-secret")).not.toContain("environment");
  });

  test("in the shared file, under the profile's name", async () => {
    const profile = "[other]\naws_access_key_id = file-id\naws_secret_access_key = file-secret\n";
    await writeFile(join(directory, "credentials"), profile);
    vi.stubEnv("AWS_PROFILE", "other");
    expect(await signers()).toEqual(["file-id"]);
  });

  test("by web identity, as Kubernetes' service accounts have it", async () => {
    await using sts = await serve((request, body) => {
      const asked = new URLSearchParams(body);
      expect(request.method).toBe("POST");
      expect(Object.fromEntries(asked)).toMatchObject({
        Action: "AssumeRoleWithWebIdentity",
        RoleArn: "arn:aws:iam::123456789012:role/stowage",
        WebIdentityToken: "identity-of-the-pod",
      });
      return {
        body: `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
          <Credentials><AccessKeyId>web-id</AccessKeyId><SecretAccessKey>web-secret</SecretAccessKey>
          <SessionToken>web-token</SessionToken><Expiration>${inAnHour()}</Expiration></Credentials>
          </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
      };
    });
    await writeFile(join(directory, "token"), "identity-of-the-pod");
    vi.stubEnv("AWS_WEB_IDENTITY_TOKEN_FILE", join(directory, "token"));
    vi.stubEnv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/stowage");
    vi.stubEnv("AWS_REGION", "eu-west-1");
    vi.stubEnv("AWS_ENDPOINT_URL_STS", sts.url);
    expect(await signers()).toEqual(["web-id web-token"]);
  });

  test("by web identity, refused", async () => {
    await using sts = await serve(() => ({
      status: 403,
      body: "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>",
    }));
    await writeFile(join(directory, "token"), "identity-of-the-pod");
    vi.stubEnv("AWS_WEB_IDENTITY_TOKEN_FILE", join(directory, "token"));
    vi.stubEnv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/stowage");
    vi.stubEnv("AWS_REGION", "eu-west-1");
    vi.stubEnv("AWS_ENDPOINT_URL_STS", sts.url);
    const error = await failureOf(open());
    expect(error).toMatchObject({ code: "BACKEND_DENIED", details: { operation: "find credentials" } });
    expect(error.message).toContain("sts:AssumeRoleWithWebIdentity");
    expect(error.message).not.toContain("identity-of-the-pod");
  });

  test("of a container, as ECS and EKS give them; expired ones are asked for anew, once", async () => {
    let given = 0;
    await using ecs = await serve(({ url, headers }) => {
      if (url !== "/v2/credentials" || headers.authorization !== "Bearer of-the-task")
        return { status: 403, body: "{}" };
      given++;
      return {
        body: JSON.stringify({
          AccessKeyId: `task-id-${given}`,
          SecretAccessKey: "task-secret",
          Token: `task-token-${given}`,
          Expiration: inAnHour(),
        }),
      };
    });
    vi.stubEnv("AWS_CONTAINER_CREDENTIALS_FULL_URI", `${ecs.url}/v2/credentials`);
    vi.stubEnv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer of-the-task");
    server.fault = (asked) =>
      signedBy(asked).startsWith("task-id-1 ") ? { instead: refusal(400, "ExpiredToken") } : undefined;
    await using driver = await open();
    await failureOf(driver.get(createPhysicalKey(), undefined, call));
    expect(signedBy(server.log.at(-1) as Asked)).toBe("task-id-2 task-token-2");
    expect(given).toBe(2);
    server.fault = () => ({ instead: refusal(400, "ExpiredToken") });
    const error = await failureOf(driver.get(createPhysicalKey(), undefined, call));
    expect(error).toMatchObject({ code: "BACKEND_DENIED" });
    expect(given).toBe(3);
  });

  test("of an EC2 instance, by the metadata service's version 2", async () => {
    const asked: string[] = [];
    await using imds = await serve((request) => {
      asked.push(`${request.method} ${request.url}`);
      const path = "/latest/meta-data/iam/security-credentials/";
      if (request.method === "PUT" && request.url === "/latest/api/token") {
        expect(request.headers["x-aws-ec2-metadata-token-ttl-seconds"]).toMatch(/^\d+$/);
        return { body: "session-of-the-instance" };
      }
      // Version 1 needs no session, and is turned off.
      if (request.headers["x-aws-ec2-metadata-token"] !== "session-of-the-instance") return { status: 401, body: "" };
      if (request.url === path) return { body: "instance-role" };
      if (request.url !== `${path}instance-role`) return { status: 404, body: "" };
      return {
        body: JSON.stringify({
          Code: "Success",
          LastUpdated: new Date().toISOString(),
          Type: "AWS-HMAC",
          AccessKeyId: "instance-id",
          SecretAccessKey: "instance-secret",
          Token: "instance-token",
          Expiration: inAnHour(),
        }),
      };
    });
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", undefined);
    vi.stubEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url);
    expect(await signers()).toEqual(["instance-id instance-token"]);
    expect(asked[0]).toBe("PUT /latest/api/token");
  });

  test("nowhere: says so, and what to do", async () => {
    const error = await failureOf(open());
    expect(error).toMatchObject({ code: "BACKEND_DENIED", details: { operation: "find credentials" } });
    expect(error.hint).toMatch(/role or keys/);
    expect(server.log).toEqual([]);
  });
});
