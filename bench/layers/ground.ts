import { join } from "node:path";
import { type Family, findFamily } from "./images.ts";
import { type Registry, startRegistry } from "./registry.ts";

/** What sections that pull stand on. */
export interface Ground extends AsyncDisposable {
  readonly family: Family;
  readonly registry: Registry;
  /** The family's images in the registry. */
  readonly references: readonly string[];
  readonly scratch: string;
}

/** A registry with the family; undefined where no registry can be started. */
export async function openGround(images: string, scale: number, scratch: string): Promise<Ground | undefined> {
  await using opening = new AsyncDisposableStack();
  const registry = await startRegistry(join(scratch, "registry"));
  if (registry === undefined) return undefined;
  opening.use(registry);
  const family = await findFamily(images, scale, scratch);
  const references: string[] = [];
  for (const tag of family.tags) references.push(await registry.push(family.layout, tag));
  const opened = opening.move();
  return { family, registry, references, scratch, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}
