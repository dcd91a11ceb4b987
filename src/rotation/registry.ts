import { generated } from "./generated/definition.ts";
import type { RotatorDefinition } from "./rotator.ts";

// What the API needs of a rotator's own folder, which it may not reach into.
export type { GeneratedConfig, GeneratedField } from "./generated/config.ts";

/** Every rotator the broker has: one folder and one line each. Typed by its own configuration; the API's `oneof` picks the matching one. */
export const ROTATORS = [generated] as const satisfies readonly AnyRotator[];

/** A rotator whose configuration type is not known here; who calls it has picked the configuration by the same name. */
export type AnyRotator = RotatorDefinition<never>;

export function rotatorByName(name: string): RotatorDefinition | undefined {
  // The configurations in the store were checked by the rotator of that name when they were written.
  return (ROTATORS as readonly AnyRotator[]).find((rotator) => rotator.name === name) as RotatorDefinition | undefined;
}
