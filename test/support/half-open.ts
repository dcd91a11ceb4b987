import { createServer, connect, type AddressInfo, type Socket } from "node:net";

/** A way to a server that can be cut without a word: as behind a firewall that has begun to drop packets, connections stay open and nothing passes. */
export interface HalfOpen {
  readonly port: number;
  /** Nothing passes any more, in no direction; new connections are taken and lead nowhere. */
  cut(): void;
  /** What was cut stays cut; new connections pass. */
  mend(): void;
  close(): Promise<void>;
}

export async function halfOpen(toPort: number): Promise<HalfOpen> {
  let cut = false;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    return socket.on("error", () => {}).on("close", () => sockets.delete(socket));
  };
  const server = createServer((from) => {
    keep(from);
    if (cut) return void from.pause();
    const to = keep(connect(toPort, "127.0.0.1"));
    from.pipe(to);
    to.pipe(from);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      cut = true;
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
      }
    },
    mend() {
      cut = false;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
