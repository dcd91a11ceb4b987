import type { Message } from "@bufbuild/protobuf";
import { LeaseholdError } from "../base/errors.ts";
import type { Identified } from "./call.ts";
import type { CallState } from "./call-state.ts";
import { refusalOf } from "./connection.ts";
import { decode } from "./definition.ts";

/** Usual limit of a request: a secret has 64 KiB, a batch 100 paths, a target 64 KiB of certificates. */
const MAX_REQUEST_BYTES = 256 * 1024;
/** Longest timer Node can set. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Steps 2 to 4 and the request's bytes; throws the refusal. (1, trace and request id, is the call's constructor.) */
export function letIn(call: CallState): Message {
  setDeadline(call);
  call.pipeline.admission.check();
  identify(call);
  return parse(call);
}

/** The client's deadline less what our answer needs to reach it, capped. A call that can't finish is refused before it costs anything. */
function setDeadline(call: CallState): void {
  const { maxUnaryMs, deadlineShaveMs, minUnaryMs } = call.pipeline.options;
  const theirs = Number(call.raw.getDeadline()) - deadlineShaveMs;
  if (theirs - call.startedAt < minUnaryMs) throw new LeaseholdError("DEADLINE_TOO_SHORT");
  call.deadlineAt = call.streaming ? theirs : Math.min(theirs, call.startedAt + (call.method.row.maxMs ?? maxUnaryMs));
}

/** A refusal of the connection wins over its principal (lesson 48). */
function identify(call: CallState): asserts call is CallState & Identified {
  const refusal = refusalOf(call.connection, call.startedAt);
  if (refusal !== undefined)
    throw new LeaseholdError(refusal, undefined, { metadata: call.connection?.why === undefined ? {} : { certificate: call.connection.why } });
  const { principal } = call;
  if (principal === undefined) throw new LeaseholdError("PRINCIPAL_INVALID");
  call.pipeline.rate.take(principal.id, call.method.row.rate, call.raw.request.length, call.startedAt);
}

/** Decoding comes before authorization, which needs the path: so it must be cheap. (4 MiB of empty list items block the loop for a second.) */
function parse(call: CallState): Message {
  const { request } = call.raw;
  if (request.length > maxBytesOf(call)) {
    throw new LeaseholdError("REQUEST_INVALID", undefined, { violations: [{ field: "", description: "is larger than this method takes" }] });
  }
  try {
    return decode(call.method.desc.input, request);
  } catch (cause) {
    const violations = [{ field: "", description: "is not a well-formed message of this type" }];
    throw new LeaseholdError("REQUEST_INVALID", undefined, { violations, cause });
  }
}

function maxBytesOf(call: CallState): number {
  const { maxBytes = MAX_REQUEST_BYTES, capability } = call.method.row;
  if (maxBytes <= MAX_REQUEST_BYTES || capability === "" || call.principal === undefined) return MAX_REQUEST_BYTES;
  return call.pipeline.with.access.allowedPrefixes(call.principal, capability).length > 0 ? maxBytes : MAX_REQUEST_BYTES;
}

/** True for a call that `letIn` let through. */
export function isIdentified(call: CallState): call is CallState & Identified {
  return call.principal !== undefined && call.connection !== undefined;
}

/** Milliseconds until the deadline, as a timer takes them; undefined when there is none to set. */
export function timerMs(call: CallState): number | undefined {
  const left = call.deadlineAt - Date.now();
  return left > MAX_TIMER_MS ? undefined : Math.max(left, 0);
}
