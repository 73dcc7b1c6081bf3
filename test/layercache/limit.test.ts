import { limitSuite } from "./limit-suite.ts";

limitSuite([Date.now() % 1_000_000], 6);
