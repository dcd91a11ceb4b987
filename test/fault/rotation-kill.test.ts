import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromJson } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it } from "vitest";
import { FAULT_POINTS } from "../../src/base/fault-point.ts";
import { CallError } from "../../src/client/errors.ts";
import { Rotation_State as State, RotationSchema, RotationService } from "../../src/gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../../src/gen/leasehold/v1/secret_service_pb.ts";
import { leaseWorld, type LeaseWorld } from "../support/lease-world.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const POINTS = FAULT_POINTS.filter((point) => point.startsWith("rotate."));

let world: LeaseWorld;
beforeAll(async () => {
  world = await leaseWorld();
});
afterAll(() => world?.close());

it.each(POINTS)(
  "a broker killed at %s: another one goes on with the same candidate, and exactly one version is CURRENT",
  { timeout: 120_000 },
  async (point) => {
    const path = `secrets/killed/${point}`;
    const log = join(tempFolder("crashes"), "log");
    writeFileSync(log, "");
    const dying = await world.spawn({}, { CRASH_AT: point, CRASH_ON: "1", CRASH_LOG: log });
    const rotation = fromJson(RotationSchema, {
      path: `rotations/${path}`,
      policy: { interval: "3600s" },
      generated: { fields: [{ name: "token", random: { size: 32 } }] },
    });
    // Killed while it answers, or after.
    await dying
      .as("admin")
      .call(RotationService.method.putRotation, { rotation })
      .catch((error: unknown) => {
        if (!(error instanceof CallError)) throw error;
      });
    await dying.program.ended;
    const before = await world.store.query<{ planned_at: Date | null }>("select planned_at from rotation where path = $1", [path]);
    // The dead one's claim is over.
    await world.shiftClock(60_000 * (POINTS.indexOf(point) + 1));
    const survivor = await world.start();
    const admin = survivor.as("admin");
    const ended = await until("the rotation is whole", async () => {
      const found = (await admin.call(RotationService.method.getRotation, { path: rotation.path })).rotation!;
      return found.state === State.WAITING && found.lastRotationTime !== undefined && found;
    });
    expect(ended).toMatchObject({ generation: 1n, cause: "first", lastProblem: "", pendingVersion: 0n });
    const { versions } = await admin.call(SecretService.method.listSecretVersions, { path });
    expect(versions.map((version) => [version.version, version.stagingLabels])).toEqual([[1n, ["CURRENT"]]]);
    expect((await admin.call(SecretService.method.getSecret, { path })).data["token"]?.kind.case).toBe("text");
    const events = await world.store.query<{ type: number }>("select type from change_log where path = $1 order by revision", [path]);
    expect(events.map((event) => event.type)).toEqual([57, 50, 51, 52, 55, 54]);
    expect(before).toHaveLength(1);
    await survivor.stop();
  },
);
