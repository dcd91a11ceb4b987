import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, describe, expect, it } from "vitest";
import { isReason } from "../../src/base/errors.ts";
import { newMasterKeyLine } from "../../src/kms/master-key.ts";
import { openKms } from "../../src/kms/registry.ts";
import { kmsConformance } from "./kms.ts";

const folder = mkdtempSync(join(tmpdir(), "leasehold-kms-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const file = (name: string, create = true) => openKms({ provider: "file", path: join(folder, name), create }, {});

describe("kms file", () => {
  kmsConformance(() => ({ open: () => file("one.key"), openOther: () => file("two.key") }));

  it("makes the key file for its owner alone", async () => {
    await file("made.key").publicKey();
    expect(statSync(join(folder, "made.key")).mode & 0o777).toBe(0o600);
  });

  it("refuses a key file that others may read", async () => {
    writeFileSync(join(folder, "wide.key"), newMasterKeyLine(), { mode: 0o600 });
    chmodSync(join(folder, "wide.key"), 0o640);
    const failure = await file("wide.key")
      .publicKey()
      .catch((error: unknown) => error);
    expect(isReason(failure, "KMS_UNAVAILABLE") && failure.message).toContain("may be read by others");
  });

  it("does not take a missing key for a new installation, and goes on once it is there", async () => {
    const kms = file("late.key", false);
    expect(isReason(await kms.publicKey().catch((error: unknown) => error), "KMS_UNAVAILABLE")).toBe(true);
    writeFileSync(join(folder, "late.key"), newMasterKeyLine(), { mode: 0o600 });
    expect(Buffer.from(await kms.publicKey())).toHaveLength(32);
  });

  it("processes that start at once agree on the key, and leave nothing else behind", async () => {
    const race = mkdtempSync(join(folder, "race-"));
    const script = `import { openFileKms } from ${JSON.stringify(new URL("../../src/kms/file/file.ts", import.meta.url).href)};
      process.stdin.once("data", () => { console.log(openFileKms(${JSON.stringify(join(race, "kms.key"))}, true).keyId); process.exit(0); }); console.log("ready");`;
    const children = Array.from({ length: 4 }, () =>
      spawn(process.execPath, ["--input-type=module-typescript", "-e", script], { stdio: ["pipe", "pipe", "inherit"] }),
    );
    const lines = children.map((child) => createInterface(child.stdout)[Symbol.asyncIterator]());
    await Promise.all(lines.map((line) => line.next()));
    for (const child of children) child.stdin.write("go\n");
    const ids = await Promise.all(lines.map(async (line) => (await line.next()).value as unknown));
    expect(ids[0]).toMatch(/^[0-9a-f]{16}$/);
    expect(new Set(ids).size).toBe(1);
    expect(readdirSync(race)).toEqual(["kms.key"]);
  });

  it("says in one line what is wrong with a folder it can't write to", async () => {
    const failure = await file("missing/one.key")
      .publicKey()
      .catch((error: unknown) => error);
    expect(isReason(failure, "KMS_UNAVAILABLE") && failure.message).toContain("ENOENT");
  });

  it("refuses a file that is no key file", async () => {
    writeFileSync(join(folder, "bad.key"), "leasehold-kms-v1:short\n", { mode: 0o600 });
    expect(
      isReason(
        await file("bad.key")
          .publicKey()
          .catch((error: unknown) => error),
        "KMS_UNAVAILABLE",
      ),
    ).toBe(true);
  });

  it("opens what an older key wrapped, after the key was replaced", async () => {
    const [old, fresh] = [newMasterKeyLine(), newMasterKeyLine()];
    writeFileSync(join(folder, "rotated.key"), old, { mode: 0o600 });
    const wrapped = await file("rotated.key").wrap(Buffer.from("seed"), Buffer.from("c"));
    writeFileSync(join(folder, "rotated.key"), fresh + old, { mode: 0o600 });
    expect(Buffer.from(await file("rotated.key").unwrap(wrapped, Buffer.from("c"))).toString()).toBe("seed");
  });
});

describe("kms env", () => {
  const [one, two] = [newMasterKeyLine(), newMasterKeyLine()];
  const open = (value: string) => openKms({ provider: "env", variable: "KEY" }, { KEY: value });
  kmsConformance(() => ({ open: () => open(one), openOther: () => open(two) }));

  it("finding C7: takes the key out of the environment at once, before any child could inherit it", async () => {
    const env: NodeJS.ProcessEnv = { KEY: one };
    const kms = openKms({ provider: "env", variable: "KEY" }, env);
    expect("KEY" in env).toBe(false);
    expect(Buffer.from(await kms.publicKey())).toHaveLength(32);
  });

  it.each([
    [undefined, "is not set"],
    ["leasehold-kms-v1:short", "must be"],
  ])("says what is wrong with %s, each time, and never shows it", async (value, message) => {
    const kms = openKms({ provider: "env", variable: "KEY" }, value === undefined ? {} : { KEY: value });
    for (let i = 0; i < 2; i++) {
      const failure = await kms.publicKey().catch((error: unknown) => error);
      expect(isReason(failure, "KMS_UNAVAILABLE") && failure.message).toContain(message);
      expect((failure as Error).message).not.toContain("short");
    }
  });
});
