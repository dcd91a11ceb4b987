/** A server's side of `startChild`: says its address, then answers with its CPU time (microseconds, every thread) until it is told to stop. */
export function serveBench(address: string, stop: () => Promise<void>): void {
  process.on("message", (message: { stop?: boolean; gc?: boolean }) => {
    if (message.stop !== true) {
      process.send!(usage(message.gc));
      return;
    }
    void stop().finally(() => process.exit(0));
  });
  process.once("disconnect", () => process.exit(1));
  process.send!({ address });
}

/** CPU time so far in microseconds, every thread, and resident memory in bytes. @param collect garbage first; needs `--expose-gc`. */
export function usage(collect = false): { readonly cpu: number; readonly rss: number } {
  if (collect) globalThis.gc?.();
  const { user, system } = process.cpuUsage();
  return { cpu: user + system, rss: process.memoryUsage.rss() };
}
