/** The `s3` driver: blobs in a bucket of S3 or of a server that speaks its protocol. */
export { s3Driver } from "./definition.ts";
