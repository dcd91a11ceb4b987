import { appendFileSync } from "node:fs";
import { type FaultPoint, setFaultHandler } from "../../src/base/fault-point.ts";

/*
 * Preloaded (`node --import`) into a broker that is to die: CRASH_AT names the fault point, CRASH_ON the how-manieth arrival, CRASH_HOW the signal (SIGKILL, or SIGSTOP to freeze). Arrivals are
 * written to CRASH_LOG with CRASH_ID, so that the driver knows which points were really died at, and by whom.
 */
const { CRASH_AT, CRASH_ON = "1", CRASH_HOW = "SIGKILL", CRASH_LOG, CRASH_ID = "" } = process.env;
let left = Number(CRASH_ON);

setFaultHandler(async (point: FaultPoint) => {
  if (point !== CRASH_AT || --left !== 0) return;
  if (CRASH_LOG !== undefined) appendFileSync(CRASH_LOG, `${point} ${CRASH_HOW} ${CRASH_ID}\n`);
  process.kill(process.pid, CRASH_HOW);
});
