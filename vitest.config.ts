import { defineConfig } from "vitest/config";

/**
 * Two projects, so that unit tests start no servers. `system` gets one PostgreSQL and one Redis for the whole run (test/support/global-setup.ts).
 * Timeouts are limits for a loaded machine, not expectations: tests wait on conditions.
 */
export default defineConfig({
  test: {
    // Processes, not threads: tests start servers and send signals.
    pool: "forks",
    maxWorkers: 2,
    restoreMocks: true,
    teardownTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 20_000 } },
      {
        extends: true,
        test: {
          name: "system",
          include: ["test/**/*.test.ts"],
          exclude: ["test/unit/**"],
          globalSetup: "test/support/global-setup.ts",
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
