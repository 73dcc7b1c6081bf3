import { channel } from "node:diagnostics_channel";

/** A durable step or a piece of progress, announced for whoever listens: progress displays, metrics, kill tests. */
export interface Step {
  /** `room event`, for example `objects staged`. */
  readonly name: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const steps = channel("stowage.step");

/** Announces a step on the diagnostics channel `stowage.step`. Costs nothing when nobody listens. */
export function announce(name: string, fields: Readonly<Record<string, unknown>> = {}): void {
  if (steps.hasSubscribers) steps.publish({ name, fields } satisfies Step);
}

/** Calls `listener` for every announced step until the returned function is called. */
export function onStep(listener: (step: Step) => void): () => void {
  const handle = (message: unknown) => listener(message as Step);
  steps.subscribe(handle);
  return () => {
    steps.unsubscribe(handle);
  };
}
