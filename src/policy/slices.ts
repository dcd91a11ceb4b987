/** Long work is written as a generator that yields after every small step; who runs it decides how long the event loop may wait. */
export type Work<T> = Generator<undefined, T, undefined>;

/** How long one slice holds the event loop, in milliseconds: well below the 20 ms that a policy change may block (finding 31). */
const SLICE_MS = 4;

/** Runs the work in slices, between which the event loop turns. */
export async function runSliced<T>(work: Work<T>): Promise<T> {
  for (;;) {
    const until = performance.now() + SLICE_MS;
    do {
      const step = work.next();
      if (step.done) return step.value;
    } while (performance.now() < until);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** Runs the work at once: for tests and small documents. */
export function runNow<T>(work: Work<T>): T {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}
