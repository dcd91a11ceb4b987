import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { EXIT, explain } from "../../src/cli/exit.ts";
import { applyManifest, manifestOf, parseManifests } from "../../src/cli/manifest.ts";
import { withoutValues } from "../../src/cli/program.ts";
import type { Client } from "../../src/client/client.ts";
import { PostgresRole_OwnedObjects } from "../../src/gen/leasehold/v1/operator_service_pb.ts";
import { startPeer } from "../support/cli-peer.ts";

const CANARY = "hunter2-canary";

/** What the command would print for documents that can't be applied, and its exit code. No broker is asked: the document is refused before. */
async function refused(text: string): Promise<{ readonly code: number; readonly said: string }> {
  const lines: string[] = [];
  try {
    for (const manifest of parseManifests(text, "f.yaml")) await applyManifest(undefined as unknown as Client, manifest, true);
  } catch (error) {
    return { code: explain(error, (line) => lines.push(line)), said: lines.join("\n") };
  }
  return { code: 0, said: "" };
}

describe("a manifest that can't be read", () => {
  it.each([
    ["a password that is not {text: ...}", `kind: Target\nname: t\npassword: ${CANARY}\n`],
    ["a password as the name of a field", `kind: Target\nname: t\npassword: { ${CANARY}: x }\n`],
    ["a password that YAML takes for an alias", `kind: Target\nname: t\npassword: *${CANARY}\n`],
    ["a password that YAML takes for a list", `kind: Target\nname: t\npassword: [${CANARY}]\n`],
    ["a quote that is not closed", `kind: Secret\npath: secrets/a\ndata: { k: "${CANARY} }\n`],
    ["a reserved first character", `kind: Secret\npath: secrets/a\ndata: { k: @${CANARY} }\n`],
    ["a secret's value that is neither text nor base64", `kind: Secret\npath: secrets/a\ndata: { k: { base64: "${CANARY}!" } }\n`],
    ["a secret's data that is no mapping", `kind: Secret\npath: secrets/a\ndata: ${CANARY}\n`],
  ])("is a usage error that names file and document and quotes nothing: %s", async (_name, text) => {
    const { code, said } = await refused(text);
    expect(code).toBe(EXIT.usage);
    expect(said).toContain("f.yaml document 1");
    expect(said).not.toContain(CANARY);
  });

  it("says which field does not exist, and how a duration is written", async () => {
    expect((await refused("kind: Policy\nname: a\nprincipal: [x]\n")).said).toContain("it has no field principal");
    expect((await refused("kind: Role\npath: credentials/postgres/a\nmaxTtl: 10m\n")).said).toContain('"600s"');
  });
});

it("a command line that is wrong is not repeated with its values", () => {
  expect(withoutValues(`error: unknown option '--password=${CANARY} more'\n`)).toBe("error: unknown option '--password=...'\n");
  expect(withoutValues("error: unknown option '--nope'\n")).toBe("error: unknown option '--nope'\n");
});

describe("apply compares what is stored with the whole document", () => {
  const stored = { name: "p", principals: ["spiffe://a.test/**"], rules: [{ paths: ["secrets/**"], allow: ["read"] }], allowBroad: true, etag: "7" };
  const document = `kind: Policy\nname: p\nprincipals: ["spiffe://a.test/**"]\nrules: [{ paths: ["secrets/**"], allow: [read] }]\n`;

  it("unchanged writes nothing; a field that was taken out is a change, written against the etag that was read", async () => {
    await using peer = await startPeer({ policy: stored });
    const apply = (text: string) => applyManifest(peer.client, parseManifests(text, "f")[0]!, false);
    expect(await apply(`${document}allowBroad: true\n`)).toEqual({ name: "policies/p", applied: "unchanged" });
    expect(peer.puts).toHaveLength(0);
    expect(await apply(document)).toEqual({ name: "policies/p", applied: "updated" });
    expect(peer.puts).toMatchObject([{ etag: "7", policy: { allowBroad: false } }]);
  });

  it("a role that leaves its limits out means the defaults the API states, not what was there before", async () => {
    const role = (maxTtl: number) => ({
      path: "credentials/postgres/r",
      target: "t",
      defaultTtl: durationFromMs(3_600_000),
      maxTtl: durationFromMs(maxTtl),
      engine: { case: "postgres" as const, value: { database: "d", memberOf: ["g"], scramIterations: 4096, ownedObjects: PostgresRole_OwnedObjects.REFUSE } },
    });
    const text = "kind: Role\npath: credentials/postgres/r\ntarget: t\npostgres: { database: d, memberOf: [g] }\n";
    await using same = await startPeer({ role: role(86_400_000) });
    expect((await applyManifest(same.client, parseManifests(text, "f")[0]!, false)).applied).toBe("unchanged");
    await using longer = await startPeer({ role: role(864_000_000) });
    expect((await applyManifest(longer.client, parseManifests(text, "f")[0]!, false)).applied).toBe("updated");
  });

  it("what get prints is what apply takes", async () => {
    await using peer = await startPeer({ policy: stored });
    const { policy } = await peer.getPolicy();
    const document = manifestOf("Policy", policy!);
    expect(document).toMatchObject({ kind: "Policy", name: "p", allowBroad: true });
    expect(document).not.toHaveProperty("etag");
    expect((await applyManifest(peer.client, parseManifests(JSON.stringify(document), "f")[0]!, false)).applied).toBe("unchanged");
  });
});
