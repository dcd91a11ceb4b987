import { Redis } from "ioredis";
import { redisAcl } from "../../src/rotation/redis-acl/definition.ts";
import { actorOf, leaseWorld, startLeaseTarget } from "../support/leases.ts";
import { dataOf, rotatorHost } from "../support/rotators.ts";
import { tcpProxy } from "../support/tcp-proxy.ts";
import { clientOf, redisTarget } from "./engine-redis-setup.ts";
import { rotatorConformance } from "./rotator.ts";

rotatorConformance("redis_acl", async () => {
  const server = await redisTarget();
  const admin = new Redis(server.url);
  await admin.call("ACL", "SETUSER", "app", "on", ">the-first-password", "~app:*", "+@read");
  admin.disconnect();
  const proxy = await tcpProxy(server.config.port);
  const postgres = await startLeaseTarget(); // the world's own target
  const world = await leaseWorld(postgres);
  const replica = await world.replica();
  await replica.writer.putTarget(
    { name: "cache", engine: "redis", config: { ...server.config, port: proxy.port, allowLogins: ["app"] }, password: server.password },
    { etag: "", dryRun: false, actor: actorOf("spiffe://acme.test/admin", "OperatorService/PutTarget"), request: undefined },
  );
  await replica.catalog.reset();
  const host = rotatorHost(replica);
  return {
    definition: redisAcl,
    config: { target: "cache", username: "app", dropPrevious: false, passwordPolicy: undefined },
    host,
    initial: dataOf({ username: "app", password: "the-first-password", note: "kept" }),
    async login(data) {
      const session = await clientOf(
        { host: "127.0.0.1", port: String(server.config.port), username: data.get("username")!.value.revealText() },
        data.get("password")!.value,
      );
      await session.close();
    },
    proxy,
    currentAlwaysWorks: true,
    async stop() {
      await host.close();
      await world.close();
      await proxy.stop();
      await postgres.cluster.stop();
      await server.stop();
    },
  };
});
