import { engineConformance } from "./engine.ts";
import { mysqlUnderTest } from "./engine-mysql-setup.ts";

engineConformance("MariaDB", mysqlUnderTest);
