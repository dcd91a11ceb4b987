import { LeaseholdError } from "../base/errors.ts";
import { ROTATORS, rotatorByName } from "./registry.ts";
import type { Rotator, RotatorDefinition, RotatorHost } from "./rotator.ts";

/** The rotators of this process, each opened when it is first needed. */
export class Rotators {
  readonly #host: RotatorHost;
  readonly #definitions: ReadonlyMap<string, RotatorDefinition>;
  readonly #open = new Map<string, Rotator>();

  /** @param more beside those of the registry. */
  constructor(host: RotatorHost, more: readonly RotatorDefinition[] = []) {
    this.#host = host;
    this.#definitions = new Map([
      ...ROTATORS.map((each) => [each.name, rotatorByName(each.name)!] as const),
      ...more.map((each) => [each.name, each] as const),
    ]);
  }

  /** Throws REQUEST_INVALID for a rotator that this binary does not have. */
  definition(name: string): RotatorDefinition {
    const found = this.#definitions.get(name);
    if (found === undefined)
      throw new LeaseholdError("REQUEST_INVALID", `no rotator ${name}`, {
        violations: [{ field: "rotation.rotator", description: "is not known to this broker" }],
      });
    return found;
  }

  open(name: string): Rotator {
    const known = this.#open.get(name);
    if (known !== undefined) return known;
    const opened = this.definition(name).open(this.#host);
    this.#open.set(name, opened);
    return opened;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map(async (rotator) => rotator.close?.()));
  }
}
