import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { SecretData } from "../../src/model/secret.ts";
import { authority, identity } from "./pki.ts";

/** Someone's own service behind a webhook rotator, as its documentation asks for: checks the signature, keeps to generation and deadline. Its system has one account with the passwords that work. */
export interface WebhookReceiver {
  readonly port: number;
  readonly caPem: string;
  accepts(data: SecretData): boolean;
  /** Steps in the order they came. */
  readonly steps: string[];
  /** Answers instead, once. */
  answerNext(answer: (request: IncomingMessage, response: ServerResponse) => void): void;
  stop(): Promise<void>;
}

const MAX_AGE_MS = 300_000;

interface Body {
  readonly step: string;
  readonly generation: number;
  readonly deadline: string;
  readonly candidate?: { readonly password?: { readonly text?: string } };
  readonly current?: Body["candidate"];
  readonly previous?: Body["candidate"];
}

export async function webhookReceiver(key: string, first: string): Promise<WebhookReceiver> {
  const [server, ca] = await Promise.all([identity("server"), authority("acme")]);
  const steps: string[] = [];
  let passwords = [first];
  let newest = 0;
  let next: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;

  const handle = (body: Body): readonly [status: number, answer: object] => {
    steps.push(body.step);
    const candidate = body.candidate?.password?.text;
    const changes = body.step === "set" || body.step === "finish" || body.step === "discard";
    if (changes && Date.now() > Date.parse(body.deadline)) return [503, { problem: "deadline_passed" }];
    if (changes && body.generation < newest) return [409, { problem: "generation_passed" }];
    if (changes) newest = body.generation;
    switch (body.step) {
      case "create":
        return [501, {}];
      case "set":
        if (candidate === undefined) return [422, { problem: "no_password" }];
        passwords = [...new Set([...passwords, candidate])];
        return [200, {}];
      case "test":
        return [200, { works: candidate !== undefined && passwords.includes(candidate) }];
      case "finish":
        passwords = passwords.filter((one) => one === body.current?.password?.text || one === body.previous?.password?.text);
        return [200, {}];
      default:
        return [501, {}];
    }
  };
  const listener: RequestListener = (request, response) => {
    const instead = next;
    next = undefined;
    if (instead !== undefined) return instead(request, response);
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const bytes = Buffer.concat(chunks);
      const [status, answer] = isSigned(String(request.headers["leasehold-signature"]), bytes, key)
        ? handle(JSON.parse(bytes.toString("utf8")) as Body)
        : [401, {}];
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  };
  const listening = createServer({ cert: server.certificatePem, key: server.keyPem }, listener);
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  return {
    port: (listening.address() as { readonly port: number }).port,
    caPem: ca.certificatePem,
    accepts: (data) => passwords.includes(data.get("password")!.value.revealText()),
    steps,
    answerNext: (answer) => (next = answer),
    async stop() {
      const closed = new Promise<void>((resolve) => listening.close(() => resolve()));
      listening.closeAllConnections();
      await closed;
    },
  };
}

/** As docs/rotation.md tells a receiver to do it. */
export function isSigned(header: string, body: Buffer, key: string): boolean {
  const parts = header.split(",").map((part) => part.split("=") as [string, string]);
  const time = Number(parts.find(([name]) => name === "t")?.[1]);
  if (!(Math.abs(Date.now() - time * 1000) < MAX_AGE_MS)) return false;
  const mine = createHmac("sha256", key).update(`${time}.`).update(body).digest();
  const digest = (bytes: Buffer): Buffer => createHash("sha256").update(bytes).digest();
  return parts.some(([name, value]) => name === "v1" && timingSafeEqual(digest(Buffer.from(value, "hex")), digest(mine)));
}
