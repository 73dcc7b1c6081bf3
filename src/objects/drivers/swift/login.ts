import { createReadStream } from "node:fs";
import { z } from "zod";
import { Secret } from "../../../config/index.ts";
import { messageOf, StowageError } from "../../../errors/index.ts";
import type { Call } from "../../../runtime/index.ts";
import type { Login, Named, SecretSource, SwiftConfig } from "./config.ts";
import { type Attempt, driverName, failed, statusFailure } from "./failure.ts";
import { type Answer, discard, type HttpRequest, readJson, type Transport } from "./transport.ts";

/** What a login gives: where the account is, and a token for it. */
export interface Session {
  readonly storageUrl: URL;
  readonly token: Secret;
  /** How long the token lives, when the server tells. */
  readonly lifetimeMs: number | undefined;
}

/** Which of the endpoints that a login tells is ours. */
export type EndpointChoice = Pick<SwiftConfig, "os_region_name" | "os_endpoint_type" | "os_storage_url">;

const answerBytesMax = 1024 * 1024;
const secretBytesMax = 64 * 1024;

/**
 * Logs in.
 * @see https://docs.openstack.org/api-ref/identity/v3/#password-authentication-with-scoped-authorization
 * @throws StowageError `BACKEND_DENIED`, `BACKEND_UNREACHABLE`, `BACKEND_FAILED`, `CONFIG_INVALID`
 */
export async function logIn(
  login: Login,
  choice: EndpointChoice,
  transport: Transport,
  container: string,
  call: Call,
): Promise<Session> {
  const attempt: Attempt = { operation: "open", resource: withoutQuery(login.authUrl), container };
  const key = await readSecret(login.key, secretBytesMax);
  const send = async (
    request: Pick<HttpRequest, "method" | "headers"> & { readonly body?: string },
    url: URL,
    accepted: readonly number[],
  ) => {
    const answer = await transport.send(
      { ...request, origin: url.origin, path: `${url.pathname}${url.search}` },
      attempt,
      call,
    );
    if (accepted.includes(answer.statusCode)) return answer;
    await discard(answer, call);
    throw loginFailure(answer, request.method, attempt);
  };
  switch (login.version) {
    case 1:
      return await firstVersion(login.user, key, new URL(login.authUrl), choice, send, attempt, call);
    case 2:
      return await secondVersion(login, key, choice, send, attempt, call);
    case 3:
      return await thirdVersion(login, key, choice, send, attempt, call);
  }
}

type Send = (
  request: Pick<HttpRequest, "method" | "headers"> & { readonly body?: string },
  url: URL,
  accepted: readonly number[],
) => Promise<Answer>;

async function firstVersion(
  user: string,
  key: Secret,
  url: URL,
  choice: EndpointChoice,
  send: Send,
  attempt: Attempt,
  call: Call,
): Promise<Session> {
  const headers = { "x-auth-user": headerText(user, "user"), "x-auth-key": headerText(key.reveal(), "key") };
  const answer = await send({ method: "GET", headers }, url, [200, 204]);
  await discard(answer, call);
  const seconds = Number(header(answer, "x-auth-token-expires") ?? Number.NaN);
  return {
    storageUrl: storageUrl(choice.os_storage_url ?? header(answer, "x-storage-url"), attempt),
    token: tokenOf(header(answer, "x-auth-token"), attempt),
    lifetimeMs: seconds > 0 ? seconds * 1000 : undefined,
  };
}

const time = z.string().max(64).optional().catch(undefined);

const secondAnswer = z.object({
  access: z.object({
    token: z.object({ id: z.string(), issued_at: time, expires: time }),
    serviceCatalog: z
      .array(
        z.object({
          type: z.string(),
          endpoints: z.array(
            z.object({
              region: z.string().nullish(),
              publicURL: z.string().optional(),
              internalURL: z.string().optional(),
              adminURL: z.string().optional(),
            }),
          ),
        }),
      )
      .default([]),
  }),
});

async function secondVersion(
  login: Extract<Login, { version: 2 }>,
  key: Secret,
  choice: EndpointChoice,
  send: Send,
  attempt: Attempt,
  call: Call,
): Promise<Session> {
  const { project } = login;
  const body = JSON.stringify({
    auth: {
      passwordCredentials: { username: login.user, password: key.reveal() },
      ...(project === undefined ? {} : "id" in project ? { tenantId: project.id } : { tenantName: project.name }),
    },
  });
  const headers = { "content-type": "application/json", accept: "application/json" };
  const answer = await send({ method: "POST", headers, body }, below(login.authUrl, "v2.0", "tokens"), [200, 203]);
  const { access } = parse(secondAnswer, await readJson(answer, answerBytesMax, attempt, call), attempt);
  const endpoints = access.serviceCatalog
    .filter(({ type }) => type === "object-store")
    .flatMap((service) => service.endpoints)
    .flatMap((endpoint) => {
      const url = endpoint[`${choice.os_endpoint_type}URL`];
      return url === undefined ? [] : [{ url, regions: [endpoint.region] }];
    });
  return {
    storageUrl: chosen(endpoints, choice, attempt),
    token: tokenOf(access.token.id, attempt),
    lifetimeMs: lifetime(access.token.issued_at, access.token.expires),
  };
}

const thirdAnswer = z.object({
  token: z.object({
    issued_at: time,
    expires_at: time,
    catalog: z
      .array(
        z.object({
          type: z.string(),
          endpoints: z.array(
            z.object({
              interface: z.string(),
              region: z.string().nullish(),
              region_id: z.string().nullish(),
              url: z.string(),
            }),
          ),
        }),
      )
      .default([]),
  }),
});

async function thirdVersion(
  login: Extract<Login, { version: 3 }>,
  key: Secret,
  choice: EndpointChoice,
  send: Send,
  attempt: Attempt,
  call: Call,
): Promise<Session> {
  const { user, userDomain, project, projectDomain } = login;
  // An id says all; a name is unique within its domain only.
  const within = (named: Named, domain: Named) => ("id" in named ? named : { ...named, domain });
  const body = JSON.stringify({
    auth: {
      identity: { methods: ["password"], password: { user: { ...within(user, userDomain), password: key.reveal() } } },
      ...(project === undefined ? {} : { scope: { project: within(project, projectDomain) } }),
    },
  });
  const headers = { "content-type": "application/json", accept: "application/json" };
  const answer = await send({ method: "POST", headers, body }, below(login.authUrl, "v3", "auth/tokens"), [200, 201]);
  const subject = header(answer, "x-subject-token");
  const { token } = parse(thirdAnswer, await readJson(answer, answerBytesMax, attempt, call), attempt);
  const endpoints = token.catalog
    .filter(({ type }) => type === "object-store")
    .flatMap((service) => service.endpoints)
    .filter((endpoint) => endpoint.interface.replace(/URL$/, "") === choice.os_endpoint_type)
    .map(({ url, region, region_id }) => ({ url, regions: [region, region_id] }));
  return {
    storageUrl: chosen(endpoints, choice, attempt),
    token: tokenOf(subject, attempt),
    lifetimeMs: lifetime(token.issued_at, token.expires_at),
  };
}

interface Endpoint {
  readonly url: string;
  readonly regions: readonly (string | null | undefined)[];
}

function chosen(endpoints: readonly Endpoint[], choice: EndpointChoice, attempt: Attempt): URL {
  if (choice.os_storage_url !== undefined) return storageUrl(choice.os_storage_url, attempt);
  const region = choice.os_region_name;
  const endpoint = endpoints.find(({ regions }) => region === undefined || regions.includes(region));
  if (endpoint !== undefined) return storageUrl(endpoint.url, attempt);
  const where = region === undefined ? "" : ` in region ${region}`;
  const known = [...new Set(endpoints.flatMap(({ regions }) => regions.filter((name) => typeof name === "string")))];
  throw new StowageError(
    "CONFIG_INVALID",
    {
      key: region === undefined ? "os_endpoint_type" : "os_region_name",
      reason: `the catalog has no ${choice.os_endpoint_type} endpoint of type object-store${where}`,
    },
    {
      hint:
        known.length === 0 ? "check os_endpoint_type and the project" : `use one of: ${known.slice(0, 20).join(", ")}`,
    },
  );
}

/** The login's URL with the version that users may leave out, and what comes below it. */
function below(authUrl: string, version: string, path: string): URL {
  const url = new URL(authUrl);
  const base = url.pathname.replace(/\/+$/, "");
  url.pathname = `${/\/v\d+(?:\.\d+)?$/.test(base) ? base : `${base}/${version}`}/${path}`;
  return url;
}

function lifetime(issued: string | undefined, expires: string | undefined): number | undefined {
  // Both are the server's: the difference needs no clock of ours.
  const ms = Date.parse(expires ?? "") - Date.parse(issued ?? "");
  return ms > 0 ? ms : undefined;
}

/** The account's URL, as the server or the configuration says it. */
export function storageUrl(text: string | undefined, attempt: Attempt): URL {
  const url = text === undefined ? null : URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol))
    throw failed(attempt, "the login tells no valid URL of the account");
  return url;
}

function tokenOf(text: string | undefined, attempt: Attempt): Secret {
  if (text === undefined || !/^[\x21-\x7e]{1,16384}$/.test(text))
    throw failed(attempt, "the login gives no valid token");
  return new Secret(text);
}

function header(answer: Answer, name: string): string | undefined {
  const value = answer.headers[name];
  return typeof value === "string" ? value : undefined;
}

/** Text as bytes of a header: UTF-8, as Swift's own clients send it. */
function headerText(text: string, key: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a header can't carry
  if (/[\u0000-\u001f\u007f]/.test(text))
    throw new StowageError("CONFIG_INVALID", { key, reason: "has control characters" });
  return Buffer.from(text, "utf8").toString("latin1");
}

function parse<T>(schema: z.ZodType<T>, value: unknown, attempt: Attempt): T {
  const { success, data } = schema.safeParse(value);
  if (!success) throw failed(attempt, "the login's answer is not what Keystone answers");
  return data;
}

function loginFailure(answer: Answer, method: string, attempt: Attempt): StowageError {
  const { statusCode } = answer;
  const reason = `${method} was answered ${statusCode}`;
  if (statusCode === 401 || statusCode === 403) {
    const details = {
      driver: driverName,
      operation: attempt.operation,
      permission: "log in",
      resource: attempt.resource,
      reason,
    };
    return new StowageError("BACKEND_DENIED", details, { hint: "check user, password, project and domains" });
  }
  // Here it is no container that is missing.
  if (statusCode === 404 || statusCode === 300) {
    return new StowageError(
      "CONFIG_INVALID",
      { key: "os_auth_url", reason: `${attempt.resource}: ${reason}` },
      { hint: "check the URL and auth_version" },
    );
  }
  return statusFailure(answer, method, attempt);
}

function withoutQuery(url: string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

async function readSecret(source: SecretSource, bytesMax: number): Promise<Secret> {
  if ("value" in source) return source.value;
  return new Secret((await readFileUpTo(source.file, bytesMax, "key_file")).replace(/\r?\n$/, ""));
}

/** @throws StowageError `CONFIG_INVALID` */
export async function readFileUpTo(path: string, bytesMax: number, key: string): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const piece of createReadStream(path)) {
      bytes += (piece as Buffer).length;
      if (bytes > bytesMax) throw new Error(`it has more than ${bytesMax} bytes`);
      pieces.push(piece as Buffer);
    }
  } catch (error) {
    throw new StowageError(
      "CONFIG_INVALID",
      { key, reason: `${path} can't be read: ${messageOf(error)}` },
      { cause: error },
    );
  }
  return Buffer.concat(pieces, bytes).toString("utf8");
}
