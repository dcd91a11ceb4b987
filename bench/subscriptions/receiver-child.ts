import { createServer } from "node:http";

/*
 * A webhook's receiver: takes everything, and counts the events. `{ events: n }` is answered when n have come since the last question: how long after the first one, how many requests, their bytes.
 */
let [events, requests, bytes, firstAt] = [0, 0, 0, 0];
let wanted = 0;

function answer(): void {
  if (wanted === 0 || events < wanted) return;
  process.send!({ ms: performance.now() - firstAt, requests, bytes, events });
  [events, requests, bytes, wanted] = [0, 0, 0, 0];
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    if (events === 0) firstAt = performance.now();
    requests++;
    bytes += body.length;
    // A floor's requests say how many they stand for.
    events +=
      request.headers["x-events"] === undefined
        ? (JSON.parse(body.toString("utf8")) as { events: readonly unknown[] }).events.length
        : Number(request.headers["x-events"]);
    response.writeHead(204).end();
    answer();
  });
});
server.keepAliveTimeout = 60_000;
server.listen(0, "127.0.0.1", () => process.send!({ port: (server.address() as { readonly port: number }).port }));
process.on("message", (message: { readonly events?: number; readonly stop?: boolean }) => {
  if (message.stop === true) process.exit(0);
  wanted = message.events ?? 0;
  answer();
});
process.once("disconnect", () => process.exit(1));
