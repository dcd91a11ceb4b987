import { importCompiled } from "./compiled.ts";
import { serveBench } from "./serve.ts";

// The broker of the compiled build as `leasehold server` runs it. Argument: the configuration file.
const { startApp } = (await importCompiled("app.js")) as typeof import("../src/app.ts");
const { loadConfig } = (await importCompiled("config.js")) as typeof import("../src/config.ts");

const app = await startApp(loadConfig(process.argv[2]!));
serveBench(app.address, () => app.stop());
