/** A server's side of `startChild`: says its address, then answers with its CPU time (microseconds, every thread) until it is told to stop. */
export function serveBench(address: string, stop: () => Promise<void>): void {
  process.on("message", (message: { stop?: boolean }) => {
    if (message.stop !== true) {
      const { user, system } = process.cpuUsage();
      process.send!({ cpu: user + system, rss: process.memoryUsage.rss() });
      return;
    }
    void stop().finally(() => process.exit(0));
  });
  process.once("disconnect", () => process.exit(1));
  process.send!({ address });
}
