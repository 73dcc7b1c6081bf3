/** The `swift` driver: blobs as objects of an OpenStack Swift container. */
export { swiftDriver } from "./definition.ts";
