import type { StaticLogin } from "../engines/static-login.ts";
import type { Db } from "../store/db.ts";
import { rotationsOfTarget } from "../store/rotations.ts";
import type { Rotators } from "./rotators.ts";

/** The logins of a target (by name) that rotations set. */
export async function loginsOfTarget(db: Db, rotators: Rotators, target: string): Promise<readonly StaticLogin[]> {
  const found = await rotationsOfTarget(db, target);
  return found.flatMap(({ rotator, config }) => rotators.definition(rotator).logins?.(config) ?? []);
}
