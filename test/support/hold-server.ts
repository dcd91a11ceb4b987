// Program of local-postgres.test.ts and local-redis.test.ts: `hold-server.ts postgres|redis <folder> [port]` starts one and holds it until it
// is killed. Says `started {pid, port}`, at Ctrl-C `interrupted`, and on failure the error's message alone.
import { freePort } from "../../src/dev/free-port.ts";
import { startLocalPostgres } from "../../src/dev/local-postgres.ts";
import { findRedis, startLocalRedis } from "../../src/dev/local-redis.ts";

const [kind, folder, port] = process.argv.slice(2);
process.on("SIGINT", () => console.log("interrupted"));
try {
  const server =
    kind === "redis"
      ? await startLocalRedis(folder!, port === undefined ? await freePort() : Number(port), findRedis()!, "password")
      : await startLocalPostgres({ dataDir: folder!, password: "password", ...(port === undefined ? {} : { port: Number(port) }) });
  console.log(`started ${JSON.stringify({ pid: server.pid, port: server.port })}`);
  await server.exited;
} catch (error) {
  console.log(`failed ${(error as Error).message}`);
}
