import { connect, createServer, type Server, type Socket } from "node:net";

/** Between the broker and an outside that is to go down: connections break, and new ones are refused, until it is up again. */
export interface TcpProxy {
  readonly port: number;
  down(): Promise<void>;
  up(): Promise<void>;
  stop(): Promise<void>;
}

export async function tcpProxy(behind: number): Promise<TcpProxy> {
  const open = new Set<Socket>();
  let server: Server | undefined;
  let port = 0;
  const up = async (): Promise<void> => {
    server = createServer((near) => {
      const far = connect(behind, "127.0.0.1");
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        open.add(from);
        from
          .on("error", () => {})
          .once("close", () => {
            open.delete(from);
            to.destroy();
          });
        from.pipe(to);
      }
    });
    await new Promise<void>((resolve) => server!.listen(port, "127.0.0.1", resolve));
    port = (server.address() as { readonly port: number }).port;
  };
  const down = async (): Promise<void> => {
    const closed = new Promise((resolve) => server!.close(resolve));
    for (const socket of open) socket.destroy();
    await closed;
  };
  await up();
  return { port, down, up, stop: down };
}
