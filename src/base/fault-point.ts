/**
 * Named points at which a test stops, freezes or ends this process: the crash points of every protocol that touches a target. Nothing in production: without LEASEHOLD_FAULT_POINTS=1 in the environment
 * `setFaultHandler` refuses, and a point is one comparison.
 */
export const FAULT_POINTS = [
  // A credential: the row is PENDING · the login is there · the row is ACTIVE, nobody has the answer.
  "issue.committed",
  "issue.created",
  "issue.activated",
  // One from the pool: its login was drawn and is enabled before it is known to be anybody's · the row is ACTIVE · the login is enabled · the row says so; the caller was answered before.
  "take.enabled_ahead",
  "take.committed",
  "take.enabled",
  "take.confirmed",
  // A renewal: the new end is written · VALID UNTIL was moved · the row says so; the caller was answered before.
  "renew.committed",
  "renew.altered",
  "renew.finished",
  // An end: REVOKING is written · the login is gone · the row is REVOKED.
  "revoke.committed",
  "revoke.removed",
  "revoke.finished",
  // The pool: PENDING without a name on it · the login is there · READY.
  "pool.committed",
  "pool.created",
  "pool.shelved",
  // Logins were drawn from it ahead: they are PENDING, and only this process knows them.
  "draw.committed",
  // The broker's own login: the candidate is in the ledger · it is set and works · it is the one in use.
  "login.staged",
  "login.set",
  "login.promoted",
  // A rotation: it began · the candidate is made, and nowhere · it is PENDING · the outside was told · it was tested · CURRENT has moved · nothing is left to do, and nobody has written so.
  "rotate.begun",
  "rotate.created",
  "rotate.staged",
  "rotate.set",
  "rotate.tested",
  "rotate.promoted",
  "rotate.cleaned",
] as const;
export type FaultPoint = (typeof FAULT_POINTS)[number];

let handler: ((point: FaultPoint) => Promise<void>) | undefined;

/** @param next called at every point, which goes on when it resolves; undefined: none. Throws outside of tests. */
export function setFaultHandler(next: ((point: FaultPoint) => Promise<void>) | undefined): void {
  if (process.env["LEASEHOLD_FAULT_POINTS"] !== "1") throw new Error("fault points are off");
  handler = next;
}

/** This process has reached a point. */
export function reached(point: FaultPoint): Promise<void> | void {
  return handler?.(point);
}
