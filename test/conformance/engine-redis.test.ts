import { engineConformance } from "./engine.ts";
import { redisUnderTest } from "./engine-redis-setup.ts";

engineConformance("Redis", redisUnderTest);
