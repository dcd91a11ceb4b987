import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type TargetUpkeep, TargetUpkeep_OrphanPolicy as Orphans, type TargetUpkeepSchema } from "../../gen/leasehold/v1/operator_service_pb.ts";
import { invalid } from "../../base/errors.ts";
import type { UpkeepConfig } from "../../model/target.ts";
import { durationMs } from "../convert.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Throws REQUEST_INVALID. What is left out stays out, so that a default may change. */
export function upkeepInput(upkeep: TargetUpkeep | undefined): UpkeepConfig {
  if (upkeep === undefined) return {};
  const orphanAgeMs = within(durationMs(upkeep.orphanAge, "target.upkeep.orphan_age"), MINUTE, 365 * DAY, "orphan_age", "from 1 min to a year");
  const scanIntervalMs = within(durationMs(upkeep.scanInterval, "target.upkeep.scan_interval"), MINUTE, 30 * DAY, "scan_interval", "from 1 min to 30 days");
  const rotateLoginEveryMs = within(
    durationMs(upkeep.rotateLoginEvery, "target.upkeep.rotate_login_every"),
    HOUR,
    3650 * DAY,
    "rotate_login_every",
    "from 1 h to 10 years",
  );
  const drop = upkeep.orphans === Orphans.DROP;
  if (orphanAgeMs !== undefined && !drop) throw invalid("target.upkeep.orphan_age", "must be left out unless orphans are dropped");
  return {
    ...(upkeep.orphans === Orphans.UNSPECIFIED ? {} : { orphans: drop ? "drop" : "report" }),
    ...(orphanAgeMs === undefined ? {} : { orphanAgeMs }),
    ...(scanIntervalMs === undefined ? {} : { scanIntervalMs }),
    ...(rotateLoginEveryMs === undefined ? {} : { rotateLoginEveryMs }),
  };
}

export function upkeepMessage({ orphans, orphanAgeMs, scanIntervalMs, rotateLoginEveryMs }: UpkeepConfig): MessageInitShape<typeof TargetUpkeepSchema> {
  return {
    orphans: orphans === undefined ? Orphans.UNSPECIFIED : orphans === "drop" ? Orphans.DROP : Orphans.REPORT,
    ...(orphanAgeMs === undefined ? {} : { orphanAge: durationFromMs(orphanAgeMs) }),
    ...(scanIntervalMs === undefined ? {} : { scanInterval: durationFromMs(scanIntervalMs) }),
    ...(rotateLoginEveryMs === undefined ? {} : { rotateLoginEvery: durationFromMs(rotateLoginEveryMs) }),
  };
}

function within(ms: number | undefined, least: number, most: number, field: string, words: string): number | undefined {
  if (ms !== undefined && (ms < least || ms > most)) throw invalid(`target.upkeep.${field}`, `must be ${words}`);
  return ms;
}
