import { defineConfig } from "vitest/config";

/** Run by `npm run test:engines` alone, since they need more servers than the others. */
const ENGINES = [
  "test/conformance/engine-mysql.test.ts",
  "test/integration/engine-mysql*.test.ts",
  "test/conformance/rotator-python.test.ts",
  "test/fault/engine-limits.test.ts",
];
const TIMEOUTS = { testTimeout: 60_000, hookTimeout: 120_000 };
const engines = {
  extends: true as const,
  test: {
    name: "engines",
    include: [
      "test/conformance/engine-*.test.ts",
      "test/integration/engine-mysql*.test.ts",
      "test/integration/engine-redis*.test.ts",
      "test/conformance/rotator-*.test.ts",
      "test/fault/engine-limits.test.ts",
    ],
    globalSetup: "test/support/global-setup.ts",
    ...TIMEOUTS,
  },
};

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
          exclude: ["test/unit/**", ...ENGINES],
          globalSetup: "test/support/global-setup.ts",
          ...TIMEOUTS,
        },
      },
      // `npm run test:engines`: needs a MariaDB and packages of Python, which it installs where it may.
      ...(process.argv.includes("engines") ? [engines] : []),
    ],
  },
});
