import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as client from "../../src/client/index.ts";
import { type Dev, startDev } from "../../src/dev/up.ts";
import { startProgram } from "../support/process.ts";
import { tempFolder } from "../support/temp.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const EXAMPLE = join(ROOT, "examples/client.ts");

describe("leasehold/client, as a program imports it", () => {
  let folder: string;
  let broker: Dev;

  beforeAll(async () => {
    folder = tempFolder("client-package");
    broker = await startDev({ folder: join(folder, ".leasehold"), listen: "127.0.0.1:0", say: () => {} });
  });
  afterAll(() => broker.stop());

  /** Runs the example in the broker's folder, and changes what it watches. */
  const tour = async (file: string): Promise<void> => {
    const program = startProgram(process.execPath, [file, "secrets/demo/smtp", "credentials/postgres/demo-ro"], {
      cwd: folder,
      env: { LEASEHOLD_CONFIG: undefined, HOME: folder },
    });
    await program.says(/secret version (\d+) with .*user/);
    const [, lease] = await program.says(/credential (leases\/\S+) for lh_/);
    await program.says(/watching\n/);
    const admin = client.connect(endpoint());
    const written = await admin.call(client.SecretService.method.putSecret, {
      path: "secrets/demo/smtp",
      data: { user: { kind: { case: "text", value: "u" } }, password: { kind: { case: "text", value: "canary" } } },
    });
    await program.says(new RegExp(`secret version ${String(written.version?.version)} with`));
    await program.says(new RegExp(`event secrets/demo/smtp version ${String(written.version?.version)}`));
    program.signal("SIGTERM");
    expect((await program.ended).code, program.stderr()).toBe(0);
    // Closed: the login was given back.
    const ended = await admin.call(client.LeaseService.method.getLease, { path: lease! });
    expect(ended.lease?.endTime).toBeDefined();
    admin.close();
  };

  const endpoint = (): client.ConnectOptions => {
    const home = join(folder, ".leasehold");
    const dev = JSON.parse(readFileSync(join(home, "dev.json"), "utf8")) as {
      address: string;
      ca: string;
      clients: Record<string, { cert: string; key: string }>;
    };
    const { cert, key } = dev.clients["admin"]!;
    return { address: dev.address, ca: join(home, dev.ca), certificate: join(home, cert), key: join(home, key), serverName: "localhost" };
  };

  it("the example works from the sources", () => tour(EXAMPLE));

  it("bin/client.mjs gives every name that src/client/index.ts has", async () => {
    const shim = (await import(join(ROOT, "bin/client.mjs"))) as object;
    expect(Object.keys(shim).sort()).toEqual(Object.keys(client).sort());
  });

  it("is what `npm pack` would ship, built, below node_modules: it runs, and its types compile", async () => {
    const modules = join(folder, "node_modules");
    const own = join(modules, "leasehold");
    mkdirSync(own, { recursive: true });
    for (const name of ["@bufbuild", "@grpc", "@types", "yaml"]) symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
    for (const name of ["package.json", "bin"]) cpSync(join(ROOT, name), join(own, name), { recursive: true });
    const built = spawnSync(process.execPath, [join(ROOT, "scripts/build.ts"), join(own, "dist")], { encoding: "utf8" });
    expect(built.status, built.stdout + built.stderr).toBe(0);

    writeFileSync(join(folder, "package.json"), `{"type":"module"}`);
    cpSync(EXAMPLE, join(folder, "app.ts"));
    const options = { module: "nodenext", target: "es2024", lib: ["es2025", "esnext.disposable"], strict: true, noEmit: true, types: ["node"] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["app.ts"] }));
    const types = spawnSync(join(ROOT, "node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" });
    expect(types.stdout).toBe("");
    await tour(join(folder, "app.ts"));
    const required = spawnSync(process.execPath, ["--input-type=commonjs", "-e", `console.log(typeof require("leasehold/client").connect)`], { cwd: folder });
    expect(required.stdout.toString()).toBe("function\n");
  });
});
