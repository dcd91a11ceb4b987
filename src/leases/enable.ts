import type { Target } from "../engines/engine.ts";
import { type LeasedLogin, loginOf } from "./login.ts";
import type { LeaseSettings } from "./settings.ts";
import type { TargetClocks } from "./target-clock.ts";

export interface EnableDeps {
  readonly clocks: TargetClocks;
  readonly settings: LeaseSettings;
}

/**
 * Lets a login of the pool log in, until `leftMs` and the grace from now. Again does no harm; too late is refused by the target's own clock, so who was frozen in between enables nothing.
 * @param latest no later than this, by the target's clock: the deadline that a drawn login's row has. Throws TARGET_*.
 */
export async function enableLogin(
  { clocks, settings }: EnableDeps,
  target: Target<unknown>,
  login: LeasedLogin,
  leftMs: number,
  latest = Number.POSITIVE_INFINITY,
): Promise<void> {
  const deadlineAt = Math.min((await clocks.ask(target)).now() + settings.createDeadlineMs, latest);
  await target.enable!(loginOf(login), leftMs + settings.graceMs, deadlineAt);
}
