// What docs/client.md describes, as a program that is run by test/integration/client-package.test.ts:
//   node examples/client.ts secrets/demo/smtp credentials/postgres/demo-ro
import { connect } from "leasehold/client";

const [secretPath, rolePath] = process.argv.slice(2);
if (secretPath === undefined || rolePath === undefined) throw new Error("usage: client.ts SECRET ROLE");

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

// The development broker of this folder, or what LEASEHOLD_* says.
const broker = connect();

// The value now, and every new version.
await using secret = broker.watchSecret(secretPath, ({ version, data }) => console.log(`secret version ${version} with ${Object.keys(data).join(", ")}`));
await secret.ready;

// A login that is renewed, and followed by another when it can't be.
await using lease = await broker.lease(rolePath, {
  onCredential: (current, previous) => console.log(`credential ${current.leasePath} after ${previous.leasePath}`),
});
console.log(`credential ${lease.current.leasePath} for ${String(lease.current.data["username"])}`);

// Everything else, in order, whatever happens to the connection.
console.log("watching");
for await (const event of broker.watch({ paths: ["secrets/demo/**"], signal: stop.signal })) console.log(`event ${event.path} version ${event.version}`);

await lease.close();
await secret.close();
broker.close();
