import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { systemActor } from "../model/audit.ts";
import { ROOTS } from "../model/path.ts";
import type { PolicyDocument } from "../model/policy.ts";
import type { Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { hasPolicies } from "../store/policies.ts";
import { checkPolicy } from "./check.ts";
import { runNow } from "./slices.ts";

const NAME = "administrators";

/**
 * Somebody must write the first policy: while there is none at all, the configured administrators get one that allows everything. It is a policy like any
 * other, to be narrowed or deleted; it does not come back while any policy exists. Answers whether it was written.
 */
export async function bootstrapAdministrators(db: Db, committer: Committer, principals: readonly string[], log: Log): Promise<boolean> {
  if (principals.length === 0 || (await hasPolicies(db))) return false;
  const document: PolicyDocument = { name: NAME, principals, allowBroad: true, rules: [{ paths: ROOTS.map((root) => `${root}/**`), allow: ["*"], deny: [] }] };
  const violations = runNow(checkPolicy(document));
  if (violations.length > 0)
    throw new LeaseholdError("REQUEST_INVALID", `administrators: ${violations[0]!.field} ${violations[0]!.description}`, { violations });
  const { name, ...stored } = document;
  const actor = systemActor("policy.bootstrap", "no policy exists");
  const outcome = await committer.commit({ kind: "policy.put", path: `policies/${name}`, actor, args: { name, document: JSON.stringify(stored), etag: "" } });
  log.info({ principals }, "no policy exists: wrote policies/administrators");
  return outcome.ok;
}
