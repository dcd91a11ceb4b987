import { readFileSync } from "node:fs";
import { Client, type ClientReadableStream, credentials } from "@grpc/grpc-js";
import { WireType } from "@bufbuild/protobuf/wire";

/*
 * Watches: `{ open: { address, method, requests, connections, streams } }` opens so many and answers `{ first }`, a message of theirs, once each has one; `{ messages, events }` answers once so
 * many have come since the last question of its kind, with `{ ms }`; `{ opened }` once so many streams have had a message; `{ close: true }` ends them all. Nothing is decoded; events are counted by their tags. Arguments: CA, certificate, key.
 */
interface Question {
  readonly open?: {
    readonly address: string;
    readonly method: string;
    /** Base64; taken in turn. */
    readonly requests: readonly string[];
    readonly connections: number;
    readonly streams: number;
    /** Don't wait for first messages. */
    readonly at_once?: boolean;
    /** On the connections that were opened last, as many. */
    readonly same_connections?: boolean;
  };
  readonly messages?: number;
  readonly events?: number;
  readonly opened?: number;
  readonly close?: boolean;
  readonly stop?: boolean;
}

const [ca, certificate, key] = process.argv.slice(2).map((file) => readFileSync(file)) as [Buffer, Buffer, Buffer];
const options = {
  "grpc.ssl_target_name_override": "localhost",
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_channelz": 0,
  "grpc.max_receive_message_length": -1,
};
const EVENTS_FIELD = 4;
const ROUND = 200;
const HANDSHAKES = 32;
let clients: Client[] = [];
let streams: ClientReadableStream<Buffer>[] = [];
let messages = 0;
let events = 0;
let opened = 0;
let last: Buffer = Buffer.alloc(0);
let since = performance.now();
let onMessage: () => void = () => {};

function open({ address, method, requests, connections, streams: count }: NonNullable<Question["open"]>, onOpenOnes = false): void {
  const own = onOpenOnes
    ? clients.slice(-connections)
    : Array.from({ length: connections }, () => new Client(address, credentials.createSsl(ca, key, certificate), options));
  if (!onOpenOnes) clients.push(...own);
  const same = (bytes: Buffer): Buffer => bytes;
  for (let i = 0; i < count; i++) {
    const request = Buffer.from(requests[i % requests.length]!, "base64");
    const stream = own[i % connections]!.makeServerStreamRequest(method, same, same, request);
    stream.once("data", () => opened++);
    stream.on("data", (message: Buffer) => {
      messages++;
      events += eventsIn(message);
      last = message;
      onMessage();
    });
    stream.on("error", (error) => {
      if (streams.length > 0) throw error;
    });
    streams.push(stream);
  }
}

function eventsIn(bytes: Buffer): number {
  let found = 0;
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag >> 3 === EVENTS_FIELD) found++;
    if ((tag & 7) === WireType.LengthDelimited) {
      const length = varint();
      at += length;
    } else varint();
  }
  return found;
}

async function until(ready: () => boolean): Promise<void> {
  if (ready()) return;
  await new Promise<void>((resolve) => {
    onMessage = () => {
      if (ready()) resolve();
    };
  });
  onMessage = () => {};
}

async function answer(question: Question): Promise<object> {
  if (question.close === true) {
    const closing = streams;
    streams = [];
    for (const stream of closing) stream.cancel();
    for (const client of clients) client.close();
    clients = [];
    messages = events = opened = 0;
    return {};
  }
  if (question.open !== undefined) {
    since = performance.now();
    const before = messages;
    const { at_once: atOnce, same_connections: same, ...all } = question.open;
    if (atOnce === true) {
      open(all, same);
      return {};
    }
    // Not all at once: each waits for its record, for a limited time; and so many handshakes are let in at a time.
    const alone = all.connections === all.streams;
    const perRound = alone ? HANDSHAKES : Math.max(ROUND, all.connections);
    for (let opened = 0; opened < all.streams; opened += perRound) {
      const more = Math.min(perRound, all.streams - opened);
      const connections = alone ? more : all.connections;
      open({ ...all, connections, streams: more, requests: all.requests.slice(opened % all.requests.length) }, !alone && opened > 0);
      await until(() => messages - before >= opened + more);
    }
    messages = events = 0;
    return { first: last.toString("base64") };
  }
  await until(() => messages >= (question.messages ?? 0) && events >= (question.events ?? 0) && opened >= (question.opened ?? 0));
  const ms = performance.now() - since;
  messages = events = 0;
  since = performance.now();
  return { ms, last: last.toString("base64") };
}

process.on("message", (question: Question) => {
  if (question.stop === true) process.exit(0);
  void answer(question).then((said) => process.send!(said));
});
process.once("disconnect", () => process.exit(1));
process.send!({});
