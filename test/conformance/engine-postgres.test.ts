import { engineConformance } from "./engine.ts";
import { postgresBinaries, startCluster } from "./engine-clusters.ts";
import { postgresUnderTest } from "./engine-postgres-setup.ts";

for (const version of (await postgresBinaries()).keys()) {
  engineConformance(`PostgreSQL ${version}`, async () => postgresUnderTest(await startCluster(version)));
}
