import { inspect } from "node:util";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { LeaseholdError } from "../../src/base/errors.ts";
import { connect, type Credential, CredentialService, LeaseService } from "../../src/client/index.ts";
import { grpcError } from "../../src/rpc/status.ts";
import { rpc, startServer } from "../support/cli-peer.ts";
import { bundle, identity } from "../support/pki.ts";
import { until } from "../support/until.ts";

const ROLE = "credentials/postgres/x/ro";

/** A broker of short leases: 300 ms each, renewable once. Its clock is a day ahead of this machine's. */
async function shortLeases() {
  const now = (): number => Date.now() + 86_400_000;
  const seen = { issues: [] as string[], renewals: [] as string[], revoked: [] as string[] };
  const lease = (n: number, issuedAt: number, expireAt: number) => ({
    path: `leases/${n}`,
    rolePath: ROLE,
    issueTime: timestampFromMs(issuedAt),
    renewTime: timestampFromMs(expireAt - 150),
    expireTime: timestampFromMs(expireAt),
    maxExpireTime: timestampFromMs(issuedAt + 600),
  });
  const issued = new Map<string, number>();
  const { port, server } = await startServer([
    rpc(CredentialService.method.issueCredential, ({ requestId }, answer) => {
      seen.issues.push(requestId);
      if (seen.issues.length === 1) return answer(grpcError(new LeaseholdError("TARGET_UNAVAILABLE", "x", { retryAfterMs: 5 }), "r"));
      issued.set(`leases/${seen.issues.length}`, now());
      const data = { password: { kind: { case: "text" as const, value: "hunter2" } } };
      answer(null, { lease: lease(seen.issues.length, now(), now() + 300), data });
    }),
    rpc(LeaseService.method.renewLease, ({ path }, answer) => {
      seen.renewals.push(path);
      const at = issued.get(path)!;
      answer(null, { lease: lease(Number(path.split("/")[1]), at, at + 600) });
    }),
    rpc(LeaseService.method.revokeLease, ({ path }, answer) => {
      seen.revoked.push(path);
      answer(null, {});
    }),
  ]);
  const [{ certificatePem: certificate, keyPem: key }, ca] = await Promise.all([identity("app"), bundle("acme")]);
  const client = connect({ address: `127.0.0.1:${port}`, certificate, key, ca, serverName: "localhost" });
  return { seen, client, close: () => (client.close(), server.forceShutdown()) };
}

it("a lease keeps its request id over tries, is renewed to its most, then followed by another, and given back", async () => {
  const { seen, client, close } = await shortLeases();
  const changes: [Credential, Credential][] = [];
  const lease = await client.lease(ROLE, { onCredential: (...pair) => void changes.push(pair) });
  expect(seen.issues[0]).toBe(seen.issues[1]);
  const first = lease.current;
  expect([first.leasePath, first.data["password"]]).toEqual(["leases/2", "hunter2"]);
  await until("another credential", () => changes.length > 0);
  expect(seen.renewals[0]).toBe("leases/2");
  expect(changes[0]![1]).toBe(first);
  expect(changes[0]![0].leasePath).toBe("leases/3");
  expect(inspect(lease) + inspect(changes) + JSON.stringify(changes)).not.toContain("hunter2");
  await lease.close();
  expect(await lease.ended).toBe("closed");
  expect(seen.revoked).toContain(lease.current.leasePath);
  close();
});

it("a lease that is not followed by another warns before its end, and ends", async () => {
  const { client, close } = await shortLeases();
  const warned: string[] = [];
  const lease = await client.lease(ROLE, { onExpiring: ({ leasePath }) => warned.push(leasePath) });
  expect(await lease.ended).toBe("expired");
  expect(warned.length).toBeGreaterThan(0);
  close();
});
