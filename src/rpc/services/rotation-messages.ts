import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Rotation,
  Rotation_State as State,
  Rotation_Step as Step,
  type RotationPolicy as PolicyMessage,
  type RotationPolicySchema,
  type RotationSchema,
} from "../../gen/leasehold/v1/rotation_service_pb.ts";
import { parsePath } from "../../model/path.ts";
import type { RotationPolicy, RotationRecord } from "../../model/rotation.ts";
import { DEFAULT_CANDIDATE_FAILURES } from "../../rotation/settings.ts";
import type { RotationInput } from "../../rotation/write.ts";
import { durationMs, timestamp } from "../convert.ts";
import { secretOfRotation } from "../rotation-path.ts";
import { rotatorConfig, rotatorMessage } from "./rotator-messages.ts";

const AT = "rotation.policy";

/** Throws REQUEST_INVALID for what only code can check. */
export function rotationInput(rotation: Rotation): RotationInput {
  const path = secretOfRotation(parsePath(rotation.path, "rotations"));
  return {
    path,
    policy: policyOf(rotation.policy),
    maxCandidateFailures: rotation.maxCandidateFailures || DEFAULT_CANDIDATE_FAILURES,
    ...rotatorConfig(rotation),
  };
}

function policyOf(policy: PolicyMessage | undefined): RotationPolicy {
  const { schedule, conditions } = policy ?? {};
  return {
    schedule:
      schedule?.case === "interval"
        ? { kind: "interval", everyMs: durationMs(schedule.value, `${AT}.interval`)! }
        : schedule?.case === "cron"
          ? {
              kind: "cron",
              expression: schedule.value.expression.trim(),
              timeZone: schedule.value.timeZone || "UTC",
              windowMs: durationMs(schedule.value.window, `${AT}.cron.window`),
            }
          : undefined,
    jitterMs: durationMs(policy?.jitter, `${AT}.jitter`),
    conditions: conditions && {
      maxAgeMs: durationMs(conditions.maxAge, `${AT}.conditions.max_age`),
      maxReads: Number(conditions.maxReads),
      beforeExpiryMs: durationMs(conditions.beforeExpiry, `${AT}.conditions.before_expiry`),
      onFinding: conditions.onFinding,
    },
  };
}

export function rotationMessage(record: RotationRecord): MessageInitShape<typeof RotationSchema> {
  const times = {
    stepTime: timestamp(record.stepAt),
    stuckSince: timestamp(record.stuckSince),
    nextAttemptTime: record.state === "RUNNING" ? timestamp(record.dueAt) : undefined,
    nextRotationTime: timestamp(record.nextAt),
    lastRotationTime: timestamp(record.lastAt),
  };
  return {
    path: `rotations/${record.path}`,
    policy: policyMessage(record.policy),
    maxCandidateFailures: record.maxCandidateFailures,
    rotator: rotatorMessage(record),
    uid: record.uid,
    etag: String(record.edition),
    state: State[record.state],
    step: record.step === undefined ? Step.UNSPECIFIED : Step[record.step],
    pendingVersion: BigInt(record.step === "FINISH" ? 0 : record.pendingVersion),
    generation: BigInt(record.generation),
    attempts: record.attempts,
    candidateFailures: record.failures,
    lastProblem: record.problem,
    cause: record.cause,
    updateTime: timestamp(record.updatedAt),
    ...Object.fromEntries(Object.entries(times).filter(([, value]) => value !== undefined)),
  };
}

function policyMessage({ schedule, jitterMs, conditions }: RotationPolicy): MessageInitShape<typeof RotationPolicySchema> {
  return {
    ...(schedule === undefined
      ? {}
      : {
          schedule:
            schedule.kind === "interval"
              ? { case: "interval" as const, value: durationFromMs(schedule.everyMs) }
              : {
                  case: "cron" as const,
                  value: {
                    expression: schedule.expression,
                    timeZone: schedule.timeZone,
                    ...(schedule.windowMs === undefined ? {} : { window: durationFromMs(schedule.windowMs) }),
                  },
                },
        }),
    ...(jitterMs === undefined ? {} : { jitter: durationFromMs(jitterMs) }),
    ...(conditions === undefined
      ? {}
      : {
          conditions: {
            maxReads: BigInt(conditions.maxReads),
            onFinding: conditions.onFinding,
            ...(conditions.maxAgeMs === undefined ? {} : { maxAge: durationFromMs(conditions.maxAgeMs) }),
            ...(conditions.beforeExpiryMs === undefined ? {} : { beforeExpiry: durationFromMs(conditions.beforeExpiryMs) }),
          },
        }),
  };
}
