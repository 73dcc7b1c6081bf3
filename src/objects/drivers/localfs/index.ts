/** The `localfs` driver: blobs as files of a directory. */
export { localfsDriver } from "./definition.ts";
