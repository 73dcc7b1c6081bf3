/** Errors: one class, one table of public codes, and their form as plain data. */
export { type CodeEntry, codes, type DetailsOf, type DetailValue, type ErrorCode } from "./codes.ts";
export { isCode, messageOf, type SerializedError, StowageError, toStowageError } from "./error.ts";
export { isTemporaryFull, temporaryFailure } from "./temporary.ts";
