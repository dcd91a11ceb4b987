import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  DeletePolicyRequestSchema,
  type ExplainAccessResponse_RuleSchema,
  type Policy,
  type PolicySchema,
  type PolicyService,
  PutPolicyRequestSchema,
} from "../../gen/leasehold/v1/policy_service_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import { CAPABILITIES, type Capability } from "../../model/capability.ts";
import type { PolicyDocument } from "../../model/policy.ts";
import type { Principal } from "../../model/principal.ts";
import { checkPolicy } from "../../policy/check.ts";
import type { ExplainedRule, Explanation } from "../../policy/explain.ts";
import { runSliced } from "../../policy/slices.ts";
import type { PolicyStore } from "../../policy/store.ts";
import type { Committer } from "../../store/command.ts";
import type { Db } from "../../store/db.ts";
import { refusal } from "../../store/group-committer.ts";
import { policiesNamed, policyPage, type PolicyRecord } from "../../store/policies.ts";
import type { Freshness, Resources } from "../collaborators.ts";
import { durationMs, timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { secretOfRotation } from "../rotation-path.ts";

export interface PolicyServiceDeps {
  readonly db: Db;
  readonly store: PolicyStore;
  readonly committer: Committer;
  readonly freshness: Freshness;
  readonly resources: Pick<Resources, "defaultTtlMs">;
  readonly pages: PageTokens;
  readonly requests: RequestKeys;
  readonly parsePrincipal: (id: string) => Principal | undefined;
}

const FIRST_PAGE = 100;
const MAX_SCANNED = 10_000;
const CHUNK = 500;

export function policyService(deps: PolicyServiceDeps): Handlers<typeof PolicyService> {
  const { db, committer, requests } = deps;
  const nameOf = (path: string): string => path.slice("policies/".length);
  const find = async (name: string): Promise<PolicyRecord> => {
    const [record] = await policiesNamed(db, [name]);
    if (record === undefined) throw new LeaseholdError("POLICY_NOT_FOUND");
    return record;
  };

  return {
    async putPolicy(request, call) {
      const document = documentOf(request.policy!);
      const violations = await runSliced(checkPolicy(document));
      if (violations.length > 0) {
        throw new LeaseholdError("REQUEST_INVALID", "policy", {
          violations: violations.map((violation) => ({ ...violation, field: `policy.${violation.field}` })),
        });
      }
      if (request.dryRun) return { policy: request.policy!, revision: 0n };
      const { name, ...stored } = document;
      const text = JSON.stringify({ ...stored, description: request.policy!.description });
      const outcome = await committer.commit({
        kind: "policy.put",
        path: call.path,
        actor: call.actor(),
        request: requests.of(PutPolicyRequestSchema, request),
        args: { name, document: text, etag: request.etag },
      });
      if (!outcome.ok) throw refusal(outcome);
      call.recorded = outcome.replay !== true;
      // Who wrote a policy may count on it from now on, on this replica at least.
      await deps.freshness.catchUp(outcome.revision);
      return { policy: policyMessage(await find(name)), revision: BigInt(outcome.revision) };
    },

    async getPolicy(_request, call) {
      return { policy: policyMessage(await find(nameOf(call.path))) };
    },

    async listPolicies(request, call) {
      const size = request.pageSize || FIRST_PAGE;
      const policies: PolicyRecord[] = [];
      let after = deps.pages.open("ListPolicies", {}, call.principal, request.pageToken) ?? "";
      let scanned = 0;
      let more = true;
      while (more && policies.length < size && scanned < MAX_SCANNED) {
        const rows = await policyPage(db, after, CHUNK);
        more = rows.length === CHUNK;
        for (const row of rows) {
          scanned++;
          after = row.document.name;
          if (call.allows(`policies/${after}`)) policies.push(row);
          if (policies.length === size) {
            more = true;
            break;
          }
        }
      }
      return { policies: policies.map(policyMessage), nextPageToken: more ? deps.pages.seal("ListPolicies", {}, call.principal, after) : "" };
    },

    async deletePolicy(request, call) {
      const outcome = await committer.commit({
        kind: "policy.delete",
        path: call.path,
        actor: call.actor(),
        request: requests.of(DeletePolicyRequestSchema, request),
        args: { name: nameOf(call.path), etag: request.etag },
      });
      if (!outcome.ok) throw refusal(outcome);
      call.recorded = outcome.replay !== true;
      await deps.freshness.catchUp(outcome.revision);
      return { revision: BigInt(outcome.revision) };
    },

    async explainAccess(request, call) {
      if (!isCapability(request.capability)) throw invalid("capability", "is not a capability");
      const principal = request.principal === "" ? call.principal : deps.parsePrincipal(request.principal);
      if (principal === undefined) throw invalid("principal", "must be a SPIFFE id");
      const asked = durationMs(request.ttl, "ttl");
      const ttlMs = asked ?? (request.capability === "issue" ? await deps.resources.defaultTtlMs(request.path) : undefined);
      const { capability } = request;
      const explain = (path: string): Explanation => deps.store.current.explain(principal, capability, path, { ttlMs });
      let explained = request.path;
      let explanation = explain(explained);
      // A rotation needs the capability on its secret too: where only that is missing, that is what to tell.
      if (explanation.decision === "allow" && explained.startsWith("rotations/")) {
        explained = secretOfRotation(explained);
        explanation = explain(explained);
      }
      const about = explained === request.path ? "" : `on ${explained}: `;
      return {
        allowed: explanation.decision === "allow",
        explanation: `${about}${sentence(explanation, explained)}`,
        ...(explanation.decidingRule === undefined ? {} : { decidingRule: ruleMessage(explanation.decidingRule, explained) }),
        nearestRules: explanation.nearestRules.map((rule) => ruleMessage(rule, explained)),
      };
    },
  };
}

function isCapability(value: string): value is Capability {
  return (CAPABILITIES as readonly string[]).includes(value);
}

function documentOf(policy: Policy): PolicyDocument {
  return {
    name: policy.name,
    principals: policy.principals,
    allowBroad: policy.allowBroad,
    rules: policy.rules.map((rule) => ({
      paths: rule.paths,
      // Unknown names are reported by checkPolicy, by their field.
      allow: rule.allow as (Capability | "*")[],
      deny: rule.deny as (Capability | "*")[],
      ...(rule.when === "" ? {} : { when: rule.when }),
      ...(rule.description === "" ? {} : { description: rule.description }),
    })),
  };
}

function policyMessage(record: PolicyRecord): MessageInitShape<typeof PolicySchema> {
  return {
    name: record.document.name,
    principals: [...record.document.principals],
    rules: record.document.rules.map((rule) => ({
      paths: [...rule.paths],
      allow: [...rule.allow],
      deny: [...rule.deny],
      when: rule.when ?? "",
      description: rule.description ?? "",
    })),
    allowBroad: record.document.allowBroad,
    description: record.description,
    uid: record.uid,
    etag: String(record.generation),
    updateTime: timestamp(record.updatedAt),
    updatedBy: record.updatedBy,
  };
}

function ruleMessage(rule: ExplainedRule, path: string): MessageInitShape<typeof ExplainAccessResponse_RuleSchema> {
  return { policy: rule.policy, ruleIndex: rule.ruleIndex, effect: rule.effect, lacked: lackedText(rule, path), pathPattern: rule.path };
}

function sentence({ decision, decidingRule, nearestRules }: Explanation, path: string): string {
  if (decidingRule !== undefined) {
    const verb = decision === "deny" ? "denied" : "allowed";
    return `${verb} by rule ${decidingRule.ruleIndex} of policy ${decidingRule.policy} (${decidingRule.path})`;
  }
  const nearest = nearestRules[0];
  if (nearest === undefined) return "denied: no rule speaks of it";
  return `denied: no rule allows it; nearest is rule ${nearest.ruleIndex} of policy ${nearest.policy} (${nearest.path}): ${lackedText(nearest, path)}`;
}

function lackedText({ lacked, condition }: ExplainedRule, path: string): string {
  switch (lacked?.kind) {
    case undefined:
      return "";
    case "condition":
      return condition === "error" ? "its condition can't be worked out for this request" : "its condition is not met";
    case "capability":
      return "it does not allow this capability";
    case "principal":
      return "it is for other principals";
    case "path": {
      const segment = path.split("/")[lacked.segment];
      return segment === undefined ? "its paths are longer" : `its path departs at segment ${lacked.segment + 1}`;
    }
  }
}
