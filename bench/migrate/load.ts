/** What is migrated: documents by number, each with its size. */
export interface Load {
  readonly name: string;
  readonly documents: number;
  readonly sizes: "analyses" | "large" | "small";
}

export const analyses: Load = { name: "5,000 documents", documents: 5000, sizes: "analyses" };
export const large: Load = { name: "20 × 50 MB", documents: 20, sizes: "large" };

export function small(documents: number): Load {
  return { name: `${documents.toLocaleString("en")} small documents`, documents, sizes: "small" };
}

export function scaled(load: Load, scale: number): Load {
  const documents = Math.max(4, Math.round(load.documents * scale));
  return documents >= load.documents ? load : { ...load, name: `${load.name}, scaled to ${documents}`, documents };
}

const largestBytes = 8_000_000;

/** By its number alone, so that every process knows it. Analyses: log-normal, most of 20 to 200 kB, some of MBs. */
export function sizeOf({ sizes }: Load, index: number): number {
  const mixed = Math.imul(index + 1, 0x9e3779b1) >>> 0;
  const first = (mixed + 1) / (2 ** 32 + 1);
  const second = ((Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b) >>> 0) + 1) / (2 ** 32 + 1);
  if (sizes === "large") return 50_000_000;
  if (sizes === "small") return 1000 + Math.floor(first * 2000);
  const normal = Math.sqrt(-2 * Math.log(first)) * Math.cos(2 * Math.PI * second);
  return Math.min(largestBytes, Math.round(65_000 * Math.exp(0.9 * normal)));
}

export function bytesOf(load: Load): number {
  let sum = 0;
  for (let index = 0; index < load.documents; index++) sum += sizeOf(load, index);
  return sum;
}
