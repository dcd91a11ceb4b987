import { defineConfig } from "vitest/config";

// Two cores: a few files at a time, each with its own database. Tests wait on conditions; the limits are for a loaded machine.
const limits = { testTimeout: 60_000, hookTimeout: 120_000, maxWorkers: 3 };

export default defineConfig({
  test: {
    ...limits,
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], ...limits } },
      {
        test: {
          name: "system",
          include: ["test/{integration,fault,conformance,clients}/**/*.test.ts"],
          globalSetup: "test/support/global-setup.ts",
          ...limits,
        },
      },
    ],
  },
});
