import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A port that leads to a server which may change, or to none: to its clients a cut is what a kill -9 of the server is. */
export interface SwitchedLine {
  readonly port: number;
  /** Ends every connection, without a word. */
  cut(): void;
  /** Where new connections lead from now on; undefined: they are ended at once. */
  lead(to: number | undefined): void;
  close(): void;
}

export async function switchedLine(): Promise<SwitchedLine> {
  const sockets = new Set<Socket>();
  let target: number | undefined;
  const server = createServer((socket) => {
    if (target === undefined) {
      socket.destroy();
      return;
    }
    const beyond = connect(target, "127.0.0.1");
    for (const each of [socket, beyond]) sockets.add(each.on("error", () => {}).on("close", () => sockets.delete(each)));
    socket.pipe(beyond).pipe(socket);
    socket.on("close", () => beyond.destroy());
    beyond.on("close", () => socket.destroy());
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    lead: (to) => void (target = to),
    close() {
      cut();
      server.close();
    },
  };
}
