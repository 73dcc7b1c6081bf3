import { contentLength, type HttpAnswer } from "./transport.ts";

/**
 * What is wrong with the answer to a request for everything from `start` of a blob of `size` bytes, in words that follow the host's name; `undefined` if it
 * is the range that was asked for.
 * @see RFC 9110, 14.4 and 15.3.7
 */
export function findRangeFault(
  answer: HttpAnswer,
  start: number,
  size: number,
  etag: string | undefined,
): string | undefined {
  if (answer.status === 416) return "has no such range";
  const header = answer.headers["content-range"];
  const match =
    typeof header === "string" ? /^\s*bytes\s+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)\s*$/i.exec(header) : null;
  // Several ranges in one answer have no such header either.
  if (match === null) return "says of a range not which one it is";
  const [, first, last, total] = match;
  if (Number(first) !== start || Number(last) !== size - 1 || (total !== "*" && Number(total) !== size)) {
    return "sends another range than the one asked for";
  }
  const length = contentLength(answer);
  if (length !== undefined && length !== size - start) return "sends a range of another length than it says";
  const given = strongEtag(answer);
  // One blob may have several, at several hosts; the whole is asked for to be sure.
  if (etag !== undefined && given !== undefined && given !== etag) return "sends a range of something else";
  return undefined;
}

/** The ETag of an answer if it is one that `If-Range` may have. @see RFC 9110, 13.1.5 */
export function strongEtag(answer: HttpAnswer): string | undefined {
  const value = answer.headers.etag;
  return typeof value === "string" && /^"[\x21\x23-\x7e]{1,500}"$/.test(value) ? value : undefined;
}
