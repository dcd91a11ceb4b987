/*
 * A receiver of Leasehold's webhooks. It runs on Node 24 as it is: SIGNING_SECRET=... node examples/webhook-receiver.ts 8080
 * (behind something that terminates TLS, or on the broker's own machine: the broker sends plain HTTP to loopback addresses alone).
 *
 * What any receiver has to do, in whatever language:
 *   1. check the signature over the body as it came, before it is parsed, comparing in constant time;
 *   2. refuse what was signed too long ago;
 *   3. remember how far it has come: deliveries come at least once, in commit order within an epoch, so a revision that is not above the last one was there before;
 *   4. answer 2xx when it has dealt with the events for good, 5xx when it can't now, 4xx when it never will;
 *   5. heed `gap`: something lies between this delivery and the one before.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";

const TOLERANCE_SECONDS = 300;
const MAX_BYTES = 4 * 1024 * 1024;

/**
 * True when one of the signatures in the header `Leasehold-Signature` (`t=<Unix seconds>,kid=<key>,v1=<hex>`, kid and v1 once for each key) was made with one of the secrets, over this body, not long ago.
 * While a secret is being changed, the broker signs with both for 24 hours: a receiver that knows either one accepts.
 */
export function verify(header: string, body: Uint8Array, secrets: readonly (string | Uint8Array)[], nowSeconds: number): boolean {
  const parts = header.split(",").map((part) => part.split("=", 2));
  const time = parts.find(([name]) => name === "t")?.[1] ?? "";
  if (!/^[0-9]{1,12}$/.test(time) || Math.abs(nowSeconds - Number(time)) > TOLERANCE_SECONDS) return false;
  const signatures = parts.filter(([name]) => name === "v1").map(([, value]) => Buffer.from(value ?? "", "hex"));
  let found = false;
  for (const secret of secrets) {
    const expected = createHmac("sha256", secret).update(`${time}.`).update(body).digest();
    for (const signature of signatures) {
      // Every pair is looked at, whatever the ones before came to.
      const same = signature.length === expected.length && timingSafeEqual(signature, expected);
      found ||= same;
    }
  }
  return found;
}

/** A Delivery of proto/leasehold/v1/subscription.proto as JSON: numbers of 64 bits are texts, what is empty is left out. */
export interface Delivery {
  readonly id: string;
  readonly subscription: string;
  readonly epoch: string;
  readonly revision?: string;
  readonly events?: readonly {
    readonly revision: string;
    readonly type: string;
    readonly path: string;
    readonly time: string;
    readonly version?: string;
    readonly snapshot?: boolean;
  }[];
  readonly snapshotEnd?: boolean;
  readonly gap?: { readonly reason: string; readonly intact?: boolean; readonly fromRevision?: string; readonly revision?: string };
  readonly replay?: boolean;
}

/** How far it has come. A real receiver keeps this with what the events change, in one transaction. */
const seen = new Map<string, bigint>();

function handle(delivery: Delivery): void {
  if (delivery.gap !== undefined && delivery.gap.intact !== true) console.log(`${delivery.subscription}: changes are missing (${delivery.gap.reason})`);
  for (const event of delivery.events ?? []) {
    const key = `${delivery.subscription} ${delivery.epoch}`;
    const again = event.snapshot !== true && delivery.replay !== true && BigInt(event.revision) <= (seen.get(key) ?? 0n);
    if (again) continue;
    console.log(`${event.revision} ${event.type} ${event.path}${event.version === undefined ? "" : ` version ${event.version}`}`);
    if (event.snapshot !== true && delivery.replay !== true) seen.set(key, BigInt(event.revision));
  }
}

async function read(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Status to answer. */
async function receive(request: IncomingMessage, secret: string): Promise<number> {
  const body = await read(request);
  if (body === undefined) return 413;
  if (!verify(String(request.headers["leasehold-signature"] ?? ""), body, [secret], Date.now() / 1000)) return 401;
  handle(JSON.parse(body.toString("utf8")) as Delivery);
  return 204;
}

if (import.meta.main) {
  const secret = process.env["SIGNING_SECRET"];
  if (secret === undefined) throw new Error("SIGNING_SECRET must be set");
  createServer((request, response) => {
    receive(request, secret).then(
      (status) => response.writeHead(status).end(),
      () => response.writeHead(500).end(),
    );
  }).listen(Number(process.argv[2] ?? 8080), "127.0.0.1");
}
