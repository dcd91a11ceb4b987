/** Something with a life: started in dependency order by `app.ts`, stopped in the reverse. `stop` is idempotent and never throws for being stopped twice. */
export interface Service {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Stops every service in reverse order, all of them even if one fails; throws the first failure at the end. */
export async function stopAll(services: readonly Pick<Service, "stop">[]): Promise<void> {
  const failures: unknown[] = [];
  for (const service of [...services].reverse()) {
    try {
      await service.stop();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
