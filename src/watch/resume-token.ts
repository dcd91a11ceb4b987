import { LeaseholdError } from "../base/errors.ts";
import type { Head } from "../store/changes.ts";

/** Where a watch goes on: a revision within an epoch. It tells nothing that the stream did not say, and gives no right: every event is authorized when it is delivered. */
export interface ResumePoint {
  readonly epoch: number;
  readonly revision: number;
}

export function resumeToken(point: ResumePoint): string {
  return Buffer.from(`1.${point.epoch}.${point.revision}`).toString("base64url");
}

/** The point, if it lies within this history; undefined if not, or if the token has no form we know. */
export function pointWithin(token: string, head: Pick<Head, "epoch" | "revision" | "floor">): ResumePoint | undefined {
  const point = pointOf(token);
  return point !== undefined && point.epoch === head.epoch && point.revision <= head.revision && point.revision >= head.floor ? point : undefined;
}

/** Throws RESUME_TOKEN_STALE for a token of another epoch, beyond the head or of no form we know, REVISION_COMPACTED below the floor. */
export function parseResumeToken(token: string, head: Pick<Head, "epoch" | "revision" | "floor">): ResumePoint {
  const point = pointOf(token);
  const metadata = { floor: String(head.floor), current: String(head.revision), epoch: String(head.epoch) };
  if (point === undefined || point.epoch !== head.epoch || point.revision > head.revision)
    throw new LeaseholdError("RESUME_TOKEN_STALE", "stale", { metadata });
  if (point.revision < head.floor) throw new LeaseholdError("REVISION_COMPACTED", "compacted", { metadata });
  return point;
}

function pointOf(token: string): ResumePoint | undefined {
  const match = /^1\.([0-9]{1,15})\.([0-9]{1,15})$/.exec(Buffer.from(token, "base64url").toString("latin1"));
  return match === null ? undefined : { epoch: Number(match[1]), revision: Number(match[2]) };
}
