import { limitSuite } from "./limit-suite.ts";

// STOWAGE_TEST_SEED runs one again.
const given = process.env.STOWAGE_TEST_SEED;
const first = given === undefined ? Date.now() % 1_000_000 : Number(given);

limitSuite(given === undefined ? [first, first + 1, first + 2, first + 3] : [first], 40);
