import { GetObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { systemClock } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { S3Configuration } from "./configuration.ts";
import type { HttpRequest } from "./http.ts";
import { nameOf, sha256 } from "./requests.ts";

/** A request about one blob, as HTTP has it. */
export interface BlobRequest {
  readonly method: "GET" | "PUT" | "DELETE";
  readonly key: PhysicalKey;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: { readonly bytes: Buffer; readonly sha256: Buffer };
}

const nothing = sha256(Buffer.alloc(0)).toString("hex");

type SignerOf = S3Client["config"]["signer"];
type Scheme = NonNullable<Parameters<SignerOf>[0]>;

/**
 * Makes requests about single blobs, which are most of all requests. Where they go and how they are signed says the SDK, once for each client; all else
 * that it does for a command costs more than the request itself.
 */
export class SignedRequests {
  readonly #client: S3Client;
  readonly #signer: Awaited<ReturnType<SignerOf>>;
  readonly #scheme: Scheme;
  readonly #server: URL;
  /** Before the name of a blob. */
  readonly #path: string;

  private constructor(
    client: S3Client,
    signer: Awaited<ReturnType<SignerOf>>,
    scheme: Scheme,
    { server, path }: { readonly server: URL; readonly path: string },
  ) {
    this.#client = client;
    this.#signer = signer;
    this.#scheme = scheme;
    this.#server = server;
    this.#path = path;
  }

  /** `undefined` where requests are signed in another way than S3's usual one. */
  static async of(client: S3Client, { bucket, prefix }: S3Configuration): Promise<SignedRequests | undefined> {
    const { scheme, server, path } = await lookAhead(client, bucket, `${prefix}-`);
    if (scheme?.name !== "sigv4") return undefined;
    return new SignedRequests(client, await client.config.signer(scheme), scheme, { server, path: path.slice(0, -1) });
  }

  async sign({ method, key, headers, body }: BlobRequest): Promise<HttpRequest> {
    const { protocol, hostname, host, port, origin } = this.#server;
    const request = {
      method,
      protocol,
      hostname,
      ...(port === "" ? {} : { port: Number(port) }),
      path: `${this.#path}${nameOf(key)}`,
      query: {},
      headers: {
        host,
        "user-agent": "stowage",
        "x-amz-content-sha256": body?.sha256.toString("hex") ?? nothing,
        ...(body === undefined ? {} : { "content-type": "application/octet-stream" }),
        ...(body === undefined ? {} : { "content-length": String(body.bytes.length) }),
        ...headers,
      },
    };
    const signed = await this.#signer.sign(request, {
      // Of a clock that is wrong, the SDK knows by how much.
      signingDate: new Date(systemClock.now().getTime() + this.#client.config.systemClockOffset),
      signingRegion: this.#scheme.signingRegion,
      signingService: this.#scheme.signingName,
    });
    const isStreamed = headers?.range !== undefined;
    return { origin, method, path: request.path, headers: signed.headers, body: body?.bytes, isStreamed };
  }
}

/** Where the SDK would send a request for the object, and how it would be signed. Nothing is sent. */
async function lookAhead(client: S3Client, bucket: string, object: string) {
  const command = new GetObjectCommand({ Bucket: bucket, Key: object });
  const { promise: found, resolve } = Promise.withResolvers<{
    scheme: Scheme | undefined;
    server: URL;
    path: string;
  }>();
  command.middlewareStack.add(
    (_, context) => async (args) => {
      const { protocol, hostname, port, path } = args.request as Place;
      const server = new URL(`${protocol}//${hostname}${port === undefined ? "" : `:${port}`}`);
      resolve({ scheme: (context.authSchemes as readonly Scheme[] | undefined)?.[0], server, path });
      return { response: undefined, output: { $metadata: {} } };
    },
    { step: "build", priority: "low", name: "lookAhead" },
  );
  await client.send(command);
  return await found;
}

interface Place {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
}
