import { maskSecrets } from "../../../config/index.ts";
import { messageOf, StowageError } from "../../../errors/index.ts";
import { systemClock } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";

/** What a request was for: names in errors and in policies. */
export interface Request {
  /** Of the driver's contract, as errors name it. */
  readonly operation: string;
  /** What a policy has to allow. */
  readonly permission: string;
  readonly key?: PhysicalKey | undefined;
  /** Name of the object, or undefined where the request is about the bucket. */
  readonly object?: string | undefined;
}

export interface Place {
  readonly bucket: string;
  /** The server, as a person knows it: the configured URL or AWS. */
  readonly server: string;
  readonly region: string;
}

/** What a server answered instead of doing it. Stands as the `cause` of the StowageError; the SDK's own errors hold requests and signatures. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** S3's code, or the SDK's name for it. */
  readonly code: string;
  /** The bucket's region, where the answer says so. */
  readonly region: string | undefined;
  readonly retryAfterMs: number | undefined;
  /** How far the server's clock is ahead of ours. */
  readonly clockAheadMs: number;

  constructor(error: unknown) {
    super(shortText(error));
    const fields = error as SdkFields;
    const headers = fields.$response?.headers ?? {};
    this.status = fields.$metadata?.httpStatusCode ?? fields.$response?.statusCode ?? 0;
    this.code = fields.Code ?? fields.code ?? fields.name ?? "";
    const expected = /expecting '([a-z0-9-]{1,64})'/.exec(this.message)?.[1];
    this.region = regionName(headers["x-amz-bucket-region"] ?? fields.Region ?? expected);
    const seconds = Number(headers["retry-after"]);
    this.retryAfterMs = seconds > 0 ? seconds * 1000 : undefined;
    const date = Date.parse(headers.date ?? "");
    this.clockAheadMs = Number.isNaN(date) ? 0 : date - systemClock.now().getTime();
  }

  is(...codes: readonly string[]): boolean {
    return codes.includes(this.code);
  }
}

interface SdkFields {
  readonly name?: string;
  readonly code?: string;
  readonly Code?: string;
  readonly Region?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $response?: { readonly statusCode?: number; readonly headers?: Readonly<Record<string, string>> };
}

/** What a failure was caused by, if a server's answer. */
export function refusalOf(error: unknown): Refusal | undefined {
  return error instanceof StowageError && error.cause instanceof Refusal ? error.cause : undefined;
}

/** Keys that are wrong or too old: newer ones may be at hand. */
export const staleCredentials = [
  ...["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"],
  // The last is versitygw's.
  ...["InvalidAccessKeyId", "InvalidClientTokenId", "XAdminUserNotFound"],
];

const deniedCodes = [
  ...["AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "InvalidSecurity", "NotSignedUp"],
  ...["SignatureDoesNotMatch", "RequestTimeTooSkewed"],
  ...staleCredentials,
];
const throttledCodes = [
  ...["SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling", "ThrottlingException"],
  ...["RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded"],
];
const fullCodes = [
  ...["XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "QuotaExceededException"],
  ...["InsufficientStorage", "InsufficientCapacity", "NoSpaceLeft"],
];
const regionCodes = [
  ...["PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"],
  ...["IllegalLocationConstraintException", "InvalidRegion"],
];
/** What is to be done about a connection that TLS did not come to terms with, by OpenSSL's and Node's names for it. */
const tlsHints: readonly (readonly [code: RegExp, hint: string])[] = [
  [
    /^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL|HTTP_REQUEST)/,
    "the server speaks no TLS at this port: write http:// in url, or the port where it does",
  ],
  [
    /^(ERR_TLS_CERT_ALTNAME_INVALID|HOSTNAME_MISMATCH)/,
    "the name in url is not in the server's certificate: write one that is, or give the server a certificate for this name",
  ],
  [
    /^CERT_(HAS_EXPIRED|NOT_YET_VALID)/,
    "the server's certificate has expired or is not valid yet: renew it, or set this machine's clock",
  ],
  [
    /^(UNABLE_TO_|CERT_|SELF_SIGNED|DEPTH_ZERO|INVALID_CA)/,
    "the server's certificate is not trusted: name the certificates of its authority in ca_file",
  ],
  [/^(ERR_SSL|ERR_TLS)/, "the TLS handshake failed: look which versions and ciphers of TLS the server takes"],
];

const skewMaxMs = 5 * 60 * 1000;

/** A failed request as an error of ours: says what is missing, and never holds what the SDK knows of the request. */
export function failureFrom(error: unknown, request: Request, place: Place): StowageError {
  const refusal = new Refusal(error);
  const { operation, key } = request;
  const driver = "s3";
  const { status } = refusal;
  const reason = refusal.message;
  const options = (hint?: string) => ({ cause: refusal, ...(hint === undefined ? {} : { hint }) });

  if (status === 0) {
    const [, hint = `look whether ${place.server} is right and can be reached from here`] =
      tlsHints.find(([code]) => code.test(refusal.code)) ?? [];
    return new StowageError("BACKEND_UNREACHABLE", { driver, operation, reason }, options(hint));
  }
  if (refusal.is("NoSuchBucket")) return bucketMissing(place, refusal);
  if (status === 301 || status === 307 || refusal.is(...regionCodes)) {
    return wrongRegion(refusal, place, options);
  }
  if (refusal.is("NoSuchKey") || (status === 404 && refusal.is("NotFound", "404", "UnknownError"))) {
    if (key === undefined) return bucketMissing(place, refusal);
    return new StowageError("BACKEND_KEY_MISSING", { driver, key }, options());
  }
  if (status === 412 && key !== undefined) return new StowageError("BACKEND_KEY_EXISTS", { driver, key }, options());
  if (status === 429 || status === 503 || refusal.is(...throttledCodes)) {
    const { retryAfterMs } = refusal;
    const asked = retryAfterMs === undefined ? {} : { retryAfterMs };
    return new StowageError("BACKEND_THROTTLED", { driver, operation, ...withKey(key), ...asked, reason }, options());
  }
  if (status === 507 || refusal.is(...fullCodes)) {
    return new StowageError("BACKEND_FULL", { driver, operation, ...withKey(key), reason }, options());
  }
  if (status === 401 || status === 403 || refusal.is(...deniedCodes)) {
    const { permission } = request;
    const resource = `arn:aws:s3:::${place.bucket}${request.object === undefined ? "" : `/${request.object}`}`;
    const details = { driver, operation, permission, resource, reason };
    return new StowageError("BACKEND_DENIED", details, options(deniedHint(refusal, request, resource)));
  }
  return new StowageError("BACKEND_FAILED", { driver, operation, ...withKey(key), reason }, options());
}

/** Says that the bucket is not there, and what to do. */
function bucketMissing({ bucket, server }: Place, cause: Refusal): StowageError {
  const hint = `make the bucket ${bucket}, or set create_bucket: true`;
  return new StowageError(
    "BACKEND_CONTAINER_MISSING",
    { driver: "s3", container: bucket, reason: `at ${server}` },
    { cause, hint },
  );
}

/** A search for credentials that found none. */
export function searchFailure(error: unknown): StowageError {
  const cause = new Refusal(error);
  const details = { driver: "s3", operation: "find credentials", reason: cause.message };
  const isNothingThere = cause.is("CredentialsProviderError", "TokenProviderError");
  // Of those who give credentials away, not of the bucket's server.
  if (!isNothingThere && (cause.status === 0 || cause.status === 429 || cause.status >= 500)) {
    return new StowageError("BACKEND_UNREACHABLE", details, { cause });
  }
  const hint = isNothingThere
    ? "give this machine, task or service account a role or keys, or set access_key and secret_key"
    : "look whether the role may be taken from here";
  return new StowageError("BACKEND_DENIED", details, { cause, hint });
}

function wrongRegion(refusal: Refusal, place: Place, options: (hint?: string) => { cause: Refusal }): StowageError {
  const named = refusal.region;
  const reason =
    named === undefined
      ? `the bucket ${place.bucket} is in another region than ${place.region}`
      : `the bucket ${place.bucket} is in the region ${named}, not in ${place.region}`;
  const hint = `set region: ${named ?? "(the region that the bucket was made in)"}`;
  return new StowageError("CONFIG_INVALID", { key: "region", reason }, options(hint));
}

function deniedHint(refusal: Refusal, { permission }: Request, resource: string): string {
  const minutes = Math.round(refusal.clockAheadMs / 60_000);
  if (refusal.is("RequestTimeTooSkewed") || Math.abs(refusal.clockAheadMs) > skewMaxMs) {
    const how = minutes === 0 ? "differ" : `differ by ${Math.abs(minutes)} minutes`;
    return `set this machine's clock: it and the server's ${how}`;
  }
  if (refusal.is("SignatureDoesNotMatch")) return "check secret_key: it does not belong to access_key";
  if (refusal.is(...staleCredentials)) return "check access_key: the server does not know it, or it has expired";
  return `allow ${permission} on ${resource} to these credentials`;
}

function withKey(key: PhysicalKey | undefined): { key?: PhysicalKey } {
  return key === undefined ? {} : { key };
}

function regionName(text: string | undefined): string | undefined {
  return text !== undefined && /^[a-z0-9-]{1,64}$/.test(text) ? text : undefined;
}

/** The server's words are foreign text: one line of it, without what looks like a signature or a token. */
function shortText(error: unknown): string {
  const { name, code, Code, $metadata } = error as SdkFields;
  const status = $metadata?.httpStatusCode;
  const known = [Code ?? code ?? name, status === undefined ? undefined : `HTTP ${status}`].filter(Boolean).join(", ");
  const words = messageOf(error)
    .replace(/[\p{Cc}\p{Cf}]+/gu, " ")
    .replace(/(X-Amz-[A-Za-z-]+|Signature|Credential|Authorization)\s*[=:]\s*\S+/gi, "$1=…")
    .slice(0, 300);
  return maskSecrets(words && words !== known ? `${known}: ${words}` : known);
}
