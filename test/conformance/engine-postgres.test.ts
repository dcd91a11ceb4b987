import { engineConformance } from "./engine.ts";
import { startCluster, VERSIONS } from "./engine-clusters.ts";
import { postgresUnderTest } from "./engine-postgres-setup.ts";

for (const version of VERSIONS) {
  engineConformance(`PostgreSQL ${version}`, async () => postgresUnderTest(await startCluster(version)));
}
