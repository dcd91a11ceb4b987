import { systemClock } from "../../src/base/clock.ts";
import { createLog } from "../../src/base/log.ts";
import { LeaseholdError } from "../../src/base/errors.ts";
import { Sensitive } from "../../src/base/sensitive.ts";
import { OpenTargets } from "../../src/catalog/open-targets.ts";
import { ENGINES } from "../../src/engines/registry.ts";
import type { SecretData } from "../../src/model/secret.ts";
import type { RotatorHost } from "../../src/rotation/rotator.ts";
import { INSTANCE } from "../conformance/engine-postgres-setup.ts";
import type { Replica } from "./leases.ts";

const log = createLog("silent");

export function dataOf(fields: Readonly<Record<string, string | Sensitive>>): SecretData {
  return new Map(Object.entries(fields).map(([name, value]) => [name, { kind: "text", value: typeof value === "string" ? Sensitive.text(value) : value }]));
}

/** What the broker gives a rotator, over a replica's catalog. `close` ends its connections. */
export function rotatorHost(replica: Replica, secrets: Readonly<Record<string, SecretData>> = {}): RotatorHost & { close(): Promise<void> } {
  const options = { clock: systemClock, instance: INSTANCE, connectTimeoutMs: 2000, statementTimeoutMs: 5000, maxConnections: 4 };
  const targets = new OpenTargets(replica.db, replica.keyring, replica.catalog, ENGINES, options, log);
  return {
    clock: systemClock,
    instance: INSTANCE,
    catalog: replica.catalog,
    targets,
    log,
    async secret(path) {
      const found = secrets[path];
      if (found === undefined) throw new LeaseholdError("SECRET_NOT_FOUND");
      return found;
    },
    close: () => targets.close(),
  };
}

/** The same for a rotator that asks a service and has no use for targets. */
export function outsideHost(secrets: Readonly<Record<string, SecretData>>): RotatorHost {
  const unused = (): never => {
    throw new Error("this rotator has no target");
  };
  return {
    clock: systemClock,
    instance: INSTANCE,
    get catalog() {
      return unused();
    },
    get targets() {
      return unused();
    },
    log,
    async secret(path) {
      const found = secrets[path];
      if (found === undefined) throw new LeaseholdError("SECRET_NOT_FOUND");
      return found;
    },
  };
}
