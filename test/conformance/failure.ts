import { StowageError } from "../../src/errors/index.ts";

/** The StowageError that a promise is rejected with; anything else is a failure of the test. */
export async function failureOf(promise: Promise<unknown>): Promise<StowageError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof StowageError) return error;
    throw error;
  }
  throw new Error("expected a StowageError, but it succeeded");
}
