/** One row of the change log: something that was committed. The numbers are leasehold.v1.EventType's, which SQL writes (migrations 0002, 0003). */
export interface Change {
  /** Place in commit order; without gaps. */
  readonly revision: number;
  /** Database clock, Unix milliseconds. */
  readonly at: number;
  readonly type: number;
  /** The resource; for leases the role path. */
  readonly path: string;
  readonly version: number;
  readonly versions: readonly number[];
  readonly leaseId: string | undefined;
  readonly principal: string;
  readonly expireAt: number | undefined;
  readonly removed: boolean;
}

/** Rotations move labels and write candidates: their events count as changes of the secret. */
export function isSecretChange(type: number): boolean {
  return (type >= 1 && type < 20) || isRotationChange(type);
}

/** 50 to 59; `expireAt` of these is the next planned rotation. */
export function isRotationChange(type: number): boolean {
  return type >= 50 && type < 60;
}

export const POLICY_CHANGED = 40;
export const TARGET_CHANGED = 41;
export const ROLE_CHANGED = 42;
export const KEYRING_ROTATED = 43;
