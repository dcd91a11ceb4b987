import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { stopAsked } from "./signals.ts";

export function addServeCommands(program: Command): void {
  program
    .command("dev")
    .description("start a complete broker on this machine: PostgreSQL, Redis if there is one, a PKI, a demo")
    .option("--folder <path>", "where it keeps its things", ".leasehold")
    .option("--listen <address>", "host:port", "127.0.0.1:8443")
    .action((options: { folder: string; listen: string }) => dev(options.folder, options.listen));
  program
    .command("server")
    .description("serve, as the configuration says")
    .requiredOption("--config <file>", "YAML; see docs/configuration.md")
    .action((options: { config: string }) => server(options.config));
  program
    .command("migrate")
    .description("bring the store's schema up to date (server does it too)")
    .requiredOption("--config <file>", "YAML; see docs/configuration.md")
    .option("--check", "only say what would be done", false)
    .action((options: { config: string; check: boolean }) => migrateStore(options.config, options.check));
  program
    .command("check-config <file>")
    .description("name every mistake in a configuration")
    .action((file: string) => checkConfig(file));
  program
    .command("version")
    .description("this binary's version")
    .action(() => console.log(ownVersion()));
}

/** Out of package.json, which is two folders up from the sources and from what is compiled: loading the whole broker for its name takes a second. */
function ownVersion(): string {
  return (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version;
}

/** `leasehold server`: serves until a signal, then drains. */
async function server(configPath: string): Promise<void> {
  const [{ startApp }, { loadConfig }] = await Promise.all([import("../app.ts"), import("../config.ts")]);
  const asked = stopAsked();
  const app = await startApp(loadConfig(configPath));
  await asked;
  await app.stop();
}

/** `leasehold dev`: a complete broker on this machine, until a signal. */
async function dev(folder: string, listen: string): Promise<void> {
  const { startDev } = await import("../dev/up.ts");
  const asked = stopAsked();
  const say = (line: string): void => console.log(line);
  const broker = await startDev({ folder, listen, say });
  say(`leasehold ready on ${broker.address}`);
  say(HINTS);
  await asked;
  say("stopping");
  await broker.stop();
}

const HINTS = `
Try, in another terminal in this folder:
  npx leasehold whoami
  npx leasehold secret get secrets/demo/smtp
  npx leasehold creds issue credentials/postgres/demo-ro
  npx leasehold watch 'credentials/**'
  npx leasehold audit tail

Ctrl-C stops everything; the data stays in .leasehold.`;

/** `leasehold migrate`: brings the store's schema up to this binary's. */
async function migrateStore(configPath: string, check: boolean): Promise<void> {
  const [{ migrate }, { clientConfig }, { loadConfig }] = await Promise.all([import("../store/migrate.ts"), import("../store/db.ts"), import("../config.ts")]);
  const done = await migrate(clientConfig(loadConfig(configPath).store), { check });
  console.log(done.length === 0 ? "nothing to do" : `${check ? "would apply" : "applied"}: ${done.join(", ")}`);
}

/** `leasehold check-config`: throws with every mistake. */
async function checkConfig(configPath: string): Promise<void> {
  const { loadConfig } = await import("../config.ts");
  loadConfig(configPath);
  console.log(`${configPath} is good`);
}
