/** Names and settings that the global set-up and the test files' side agree on. */
export const DATABASE_OWNER = "leasehold";
export const MIGRATED_TEMPLATE = "template_migrated";

/** Nothing here has to survive a power cut; crashes of the server alone still lose nothing. */
export const TEST_SETTINGS: Readonly<Record<string, string>> = {
  fsync: "off",
  full_page_writes: "off",
  shared_buffers: "64MB",
  max_connections: "300",
};
