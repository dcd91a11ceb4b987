import { readFileSync } from "node:fs";
import { Client, credentials } from "@grpc/grpc-js";

/*
 * The load: a number of calls in flight over four connections, ready bytes out, bytes in. Asked `{ address, method, requests, seconds or calls, inFlight }` it calls for that
 * long, or that often, and answers `{ calls, p50, p99, ms }` (milliseconds); any failed call ends it. Arguments: CA, certificate, key.
 */
interface Question {
  readonly address: string;
  readonly method: string;
  /** Base64; taken in turn. */
  readonly requests: readonly string[];
  /** One of the two. */
  readonly seconds?: number;
  readonly calls?: number;
  readonly inFlight: number;
  readonly stop?: boolean;
}

const CONNECTIONS = 4;
const DEADLINE_MS = 20_000;
const [ca, certificate, key] = process.argv.slice(2).map((file) => readFileSync(file)) as [Buffer, Buffer, Buffer];
const clients = new Map<string, Client[]>();

function clientsOf(address: string): Client[] {
  let found = clients.get(address);
  if (found === undefined) {
    const options = { "grpc.ssl_target_name_override": "localhost", "grpc.use_local_subchannel_pool": 1, "grpc.enable_channelz": 0 };
    found = Array.from({ length: CONNECTIONS }, () => new Client(address, credentials.createSsl(ca, key, certificate), options));
    clients.set(address, found);
  }
  return found;
}

function run(question: Question): Promise<{ calls: number; p50: number; p99: number; ms: number }> {
  const { address, method, seconds = Number.POSITIVE_INFINITY, calls = Number.POSITIVE_INFINITY, inFlight } = question;
  const targets = clientsOf(address);
  const requests = question.requests.map((text) => Buffer.from(text, "base64"));
  const times: number[] = [];
  const beganAt = performance.now();
  const until = beganAt + seconds * 1000;
  const same = (bytes: Buffer): Buffer => bytes;
  let next = 0;
  let open = 0;
  return new Promise((resolve, reject) => {
    const one = (client: Client): void => {
      const startedAt = performance.now();
      open++;
      client.makeUnaryRequest(method, same, same, requests[next++ % requests.length]!, { deadline: Date.now() + DEADLINE_MS }, (error) => {
        open--;
        if (error !== null) return reject(error);
        const now = performance.now();
        times.push(now - startedAt);
        if (now < until && next < calls) one(client);
        else if (open === 0) {
          times.sort((a, b) => a - b);
          resolve({ calls: times.length, p50: times[times.length >> 1]!, p99: times[Math.floor(times.length * 0.99)]!, ms: now - beganAt });
        }
      });
    };
    for (let i = 0; i < Math.min(inFlight, calls); i++) one(targets[i % CONNECTIONS]!);
  });
}

process.on("message", (question: Question) => {
  if (question.stop === true) process.exit(0);
  void run(question).then((answer) => process.send!(answer));
});
process.once("disconnect", () => process.exit(1));
process.send!({});
