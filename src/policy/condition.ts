import { celEnv, CelScalar, mapType, parse, plan, type CelInput } from "@bufbuild/cel";
import { create } from "@bufbuild/protobuf";
import { DurationSchema, timestampFromMs, type Duration } from "@bufbuild/protobuf/wkt";
import type { Capability } from "../model/capability.ts";
import type { Principal } from "../model/principal.ts";
import type { RuleEntry } from "./rule.ts";

/** What is asked, beside who asks: effective values (a role's default TTL applied). What a call has not, conditions do not see. */
export interface RequestFacts {
  /** Milliseconds. */
  readonly ttlMs?: number | undefined;
  /** `CredentialService/IssueCredential` */
  readonly method?: string | undefined;
  readonly version?: number | undefined;
}

/** One question to the engine, as conditions see it. */
export interface Question {
  readonly principal: Principal;
  readonly capability: Capability;
  readonly path: string;
  readonly facts: RequestFacts | undefined;
  /** Unix milliseconds. */
  readonly now: number;
}

/** `error` is neither: an allow with it does not match, a deny with it does (finding 14, lesson 45). */
export type Outcome = "true" | "false" | "error";

const DYNAMIC = mapType(CelScalar.STRING, CelScalar.DYN);
/** Standard CEL functions, no extensions. */
export const CONDITION_ENV = celEnv({ variables: { request: DYNAMIC, principal: DYNAMIC } });

type Program = (bindings: Record<string, CelInput>) => unknown;

/** A condition of a rule; parsed when it is first asked. */
export class Condition {
  readonly text: string;
  #program: Program | undefined;

  constructor(text: string) {
    this.text = text;
  }

  /** Never throws: whatever goes wrong is `error`, also a text that this version can't parse. */
  evaluate(question: Question, captures: RuleEntry["captures"]): Outcome {
    try {
      this.#program ??= planText(this.text);
      // The library returns errors as values, which are truthy: nothing but the two booleans is an answer.
      const result = this.#program(bindings(question, captures));
      return result === true ? "true" : result === false ? "false" : "error";
    } catch {
      return "error";
    }
  }
}

function planText(text: string): Program {
  return plan(CONDITION_ENV, parse(text)) as Program;
}

function bindings(question: Question, captures: RuleEntry["captures"]): Record<string, CelInput> {
  const { principal, facts } = question;
  const request = new Map<string, CelInput>([
    ["path", question.path],
    ["capability", question.capability],
  ]);
  if (facts?.ttlMs !== undefined) request.set("ttl", duration(facts.ttlMs));
  if (facts?.method !== undefined) request.set("method", facts.method);
  if (facts?.version !== undefined) request.set("version", BigInt(facts.version));
  const who = new Map<string, CelInput>([
    ["id", principal.id],
    ["trust_domain", principal.trustDomain],
    ["segments", [...principal.segments]],
    ["captures", new Map(captures.map(([name, position]) => [name, principal.segments[position] ?? ""]))],
  ]);
  return { request, principal: who, now: timestampFromMs(question.now) };
}

function duration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) });
}
