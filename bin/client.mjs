// `leasehold/client`: the sources where they are (a clone; Node strips their types), otherwise what `npm run build` made of them. Node strips no types below node_modules.
import { existsSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, "src", "client", "index.ts");
const isClone = existsSync(source) && !root.includes(`${sep}node_modules${sep}`);
// A module's names can't be computed: test/integration/client-package.test.ts compares them with src/client/index.ts.
export const {
  AuditService,
  CallError,
  Client,
  connect,
  Credential,
  CredentialService,
  EventType,
  HeldLease,
  IdentityService,
  Leasehold,
  LeaseService,
  OperationService,
  OperatorService,
  PolicyService,
  SecretService,
  SecretValue,
  SecretWatch,
  SettingsError,
  WatchEvent,
  WatchService,
} = await import(isClone ? source : join(root, "dist", "client", "index.js"));
