import type { Bench } from "./result.ts";
export const startBenches: readonly Bench[] = [];
