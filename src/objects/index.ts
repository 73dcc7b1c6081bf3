/**
 * Objects: documents by account, bucket and key. Bytes never change, pointers do: a put goes to a new location, one transaction moves the pointer,
 * and the reaper alone deletes. Every read is checked against the digest that was recorded when it was written.
 */
export type { BackendSection, BackendSections } from "./backends.ts";
export type { Codec, Compression } from "./codec.ts";
export type {
  BodySource,
  ByteRange,
  DriverCapabilities,
  DriverDefinition,
  DriverSurroundings,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "./driver.ts";
export { type ObjectStoreOptions, openObjectStore } from "./object-store.ts";
export { createPhysicalKey, parsePhysicalKey } from "./physical-key.ts";
export { transitions } from "./states.ts";
export type { ObjectBody, ObjectRef, ObjectStore, ObjectVersion, ReapReport, StagedObject } from "./store.ts";
