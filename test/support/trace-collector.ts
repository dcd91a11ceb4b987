import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface TraceCollector {
  /** What a broker's environment says to send its spans here. */
  readonly env: Readonly<Record<string, string>>;
  /** Everything received so far, as Latin-1: for looking whether names and values are in it. */
  text(): string;
  stop(): void;
}

/** Takes OTLP over HTTP on a free port and keeps what traces say. */
export async function startTraceCollector(): Promise<TraceCollector> {
  let text = "";
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      if (request.url === "/v1/traces") text += Buffer.concat(chunks).toString("latin1");
      response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return { env: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` }, text: () => text, stop: () => void server.close() };
}
