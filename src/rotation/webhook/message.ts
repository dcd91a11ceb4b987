import { Sensitive } from "../../base/sensitive.ts";
import type { SecretData, SecretValue } from "../../model/secret.ts";
import { refused } from "../outside.ts";
import type { CandidateStep, CreateStep } from "../rotator.ts";
import type { WebhookConfig } from "./config.ts";

export type StepName = "create" | "set" | "test" | "finish" | "discard";

const RFC_3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;

/** What is POSTed, as in docs/rotation.md. Holds secrets in clear. */
export function bodyOf(name: StepName, instance: string, step: CreateStep<WebhookConfig> & Partial<CandidateStep<WebhookConfig>>): Buffer {
  const { path, generation, candidateId, deadlineAt, config, current, candidate, previous, givenUp } = step;
  const text = JSON.stringify({
    step: name,
    rotation: `rotations/${path}`,
    path,
    instance,
    generation,
    candidate_id: candidateId,
    deadline: new Date(deadlineAt).toISOString(),
    parameters: config.parameters,
    current: fields(current),
    ...(candidate === undefined ? {} : { candidate: fields(candidate) }),
    ...(name === "finish" ? { previous: fields(previous) } : {}),
    ...(name === "set" ? { given_up: (givenUp ?? []).map(fields) } : {}),
  });
  return Buffer.from(text, "utf8");
}

/** The service's candidate in its answer; undefined when it made none. Throws TARGET_MISCONFIGURED `malformed_answer`. */
export function candidateIn(answer: unknown): SecretData | undefined {
  const found = isObject(answer) ? answer["candidate"] : undefined;
  if (found === undefined || found === null) return undefined;
  if (!isObject(found)) throw refused("malformed_answer");
  const data = new Map(Object.entries(found).map(([name, value]): [string, SecretValue] => [name, valueOf(value)]));
  return data.size === 0 ? undefined : data;
}

/** When the service's candidate ends, Unix milliseconds; undefined: not by itself. Throws TARGET_MISCONFIGURED `malformed_answer`. */
export function expireAtIn(answer: unknown): number | undefined {
  const text = isObject(answer) ? answer["expire_time"] : undefined;
  if (text === undefined || text === null) return undefined;
  if (typeof text !== "string" || !RFC_3339.test(text) || Number.isNaN(Date.parse(text))) throw refused("malformed_answer");
  return Date.parse(text);
}

/** A test's answer. Throws TARGET_MISCONFIGURED `malformed_answer` for what is none: silence is no success. */
export function worksIn(answer: unknown): boolean {
  const works = isObject(answer) ? answer["works"] : undefined;
  if (typeof works !== "boolean") throw refused("malformed_answer");
  return works;
}

/** A word for what is wrong, if the answer has one. */
export function problemIn(answer: unknown): unknown {
  return isObject(answer) ? answer["problem"] : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fields(data: SecretData | undefined): Record<string, { readonly text: string } | { readonly bytes: string }> {
  const entries = [...(data ?? new Map<string, SecretValue>())];
  return Object.fromEntries(
    entries.map(([name, { kind, value }]) => [
      name,
      kind === "text" ? { text: value.revealText() } : { bytes: Buffer.from(value.reveal()).toString("base64") },
    ]),
  );
}

function valueOf(value: unknown): SecretValue {
  if (isObject(value)) {
    const { text, bytes } = value;
    if (typeof text === "string" && bytes === undefined && text.isWellFormed()) return { kind: "text", value: Sensitive.text(text) };
    if (typeof bytes === "string" && text === undefined && /^[A-Za-z0-9+/]*={0,2}$/.test(bytes))
      return { kind: "bytes", value: new Sensitive(Buffer.from(bytes, "base64")) };
  }
  throw refused("malformed_answer");
}
