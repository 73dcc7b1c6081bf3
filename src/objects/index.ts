/**
 * Objects: documents by account, bucket and key. Bytes never change, pointers do: a put goes to a new location, one transaction moves the pointer,
 * and the reaper alone deletes. Every read is checked against the digest that was recorded when it was written.
 */

export { type BackendSection, type BackendSections, describeSection } from "./backends.ts";
export { type CheckStep, checkBackend, checkSizes, refusedCheck } from "./check.ts";
export type { Codec } from "./codec.ts";
export type { Copies } from "./copies.ts";
export type {
  BodySource,
  ByteRange,
  DoomedBlob,
  DriverCapabilities,
  DriverDefinition,
  DriverOpener,
  DriverSurroundings,
  ForeignBlob,
  ObjectDriver,
  PhysicalKey,
  StoredBlob,
} from "./driver.ts";
export { guard } from "./guarded-driver.ts";
export { type ObjectStoreOptions, openObjectStore } from "./object-store.ts";
export { createPhysicalKey, parsePhysicalKey } from "./physical-key.ts";
export type { CompactionReport } from "./rows/compact.ts";
export type { Reclaimable } from "./rows/reaper.ts";
export type { ScrubFinding } from "./rows/scrubs.ts";
export type { DatabaseSize, KeptGroup, TableSize } from "./rows/usage.ts";
export type { ScrubOptions, ScrubPlan, ScrubReport } from "./scrub.ts";
export { transitions } from "./states.ts";
export type {
  Elsewhere,
  ObjectBody,
  ObjectRef,
  ObjectStore,
  ObjectVersion,
  ReapReport,
  Reclaimed,
  StagedObject,
  StoreMaintenance,
} from "./store.ts";
export type { BackendHolding, UsageReport } from "./usage.ts";
