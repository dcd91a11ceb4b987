/** A Ctrl-C through npm arrives twice within a millisecond: what comes within this time is the same one. */
const SAME_MS = 1000;

/**
 * Resolves at the first SIGINT, SIGTERM or SIGHUP. A second one, more than a second later, ends the process at once with 130: whoever asks twice does not want to wait.
 */
export function stopAsked(): Promise<void> {
  return new Promise((resolve) => {
    let firstAt: number | undefined;
    const asked = (): void => {
      const now = performance.now();
      if (firstAt === undefined) {
        firstAt = now;
        resolve();
      } else if (now - firstAt > SAME_MS) process.exit(130);
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, asked);
  });
}
