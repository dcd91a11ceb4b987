import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Dev, startDev } from "../../src/dev/up.ts";
import { tempFolder } from "../support/temp.ts";
import { until } from "../support/until.ts";

const MAIN = resolve(import.meta.dirname, "../../src/main.ts");

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

describe("the command, against a development broker", () => {
  let folder: string;
  let broker: Dev;
  const said: string[] = [];

  beforeAll(async () => {
    folder = tempFolder("cli");
    broker = await startDev({ folder: join(folder, ".leasehold"), listen: "127.0.0.1:0", say: (line) => said.push(line) });
  });
  afterAll(() => broker.stop());

  /** Runs the real command as a process of its own, as a script would. */
  const run = (...args: string[]): Promise<Ran> =>
    new Promise((done) => {
      const child = spawn(process.execPath, [MAIN, ...args], { cwd: folder, env: { PATH: process.env["PATH"], HOME: folder } });
      let [out, err] = ["", ""];
      child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
      child.stdin.end("from standard input");
      child.on("close", (code) => done({ code, out, err }));
    });
  const json = async <T>(...args: string[]): Promise<T> => {
    const { code, out, err } = await run(...args, "-o", "json");
    expect([code, err]).toEqual([0, ""]);
    return JSON.parse(out) as T;
  };

  it("finds the broker by itself, as admin or another", async () => {
    expect((await json<{ principal: string }>("whoami")).principal).toBe("spiffe://leasehold.dev/admin");
    expect((await json<{ principal: string }>("whoami", "--as", "demo-app")).principal).toBe("spiffe://leasehold.dev/ns/demo/sa/app");
  });

  it("keeps the contract for scripts: secrets", async () => {
    writeFileSync(join(folder, "raw"), Uint8Array.of(0xff, 0xfe));
    expect(await run("secret", "put", "secrets/a/b", "user=x", "raw=@raw", "in=-")).toMatchObject({ code: 0, out: "secrets/a/b version 1\n" });
    const got = await json<{ path: string; version: number; data: Record<string, unknown> }>("secret", "get", "secrets/a/b");
    expect(got).toMatchObject({ path: "secrets/a/b", version: 1, data: { user: "x", raw: { base64: "//4=" }, in: "from standard input" } });
    expect((await run("secret", "get", "secrets/a/b", "--field", "user")).out).toBe("x");
    expect((await run("secret", "put", "secrets/a/b", "user=y", "--expected-version", "1")).code).toBe(0);
    expect((await run("secret", "rollback", "secrets/a/b", "--to", "1")).out).toBe("secrets/a/b version 3\n");
    expect((await run("secret", "delete", "secrets/a/b", "--versions", "3")).code).toBe(0);
    expect((await run("secret", "get", "secrets/a/b")).code).toBe(6);
    expect((await run("secret", "undelete", "secrets/a/b", "--versions", "3")).code).toBe(0);
    expect((await run("secret", "destroy", "secrets/a/b", "--versions", "2")).code).toBe(0);
    const versions = (await run("secret", "versions", "secrets/a/b")).out;
    expect(
      versions
        .split("\n")
        .slice(1, 4)
        .map((line) => line.split(/\s+/).slice(0, 2).join(" ")),
    ).toEqual(["3 enabled", "2 destroyed", "1 enabled"]);
    expect((await json<{ secrets: { path: string }[] }>("secret", "list", "secrets/a")).secrets.map((secret) => secret.path)).toEqual(["secrets/a/b"]);
    expect((await run("secret", "delete", "secrets/a/b")).code).toBe(0);
    expect((await run("secret", "restore", "secrets/a/b")).code).toBe(0);
  });

  it("keeps the contract for scripts: a login that works, is renewed, and is gone when revoked", async () => {
    const { lease, data } = await json<{ lease: { path: string }; data: Record<string, string> }>(
      "creds",
      "issue",
      "credentials/postgres/demo-ro",
      "--ttl",
      "60s",
    );
    const login = (): pg.Client =>
      new pg.Client({ host: data["host"]!, port: Number(data["port"]), database: data["database"]!, user: data["username"]!, password: data["password"]! });
    const client = login();
    client.on("error", () => {});
    await client.connect();
    const rows = await client.query<{ text: string }>("select text from greeting");
    expect(rows.rows).toEqual([{ text: "hello from a leased login" }]);
    await client.end();
    const renewed = await json<{ state: string; expireTime: string }>("lease", "renew", lease.path, "--increment", "5m");
    expect(renewed.state).toBe("STATE_ACTIVE");
    expect((await json<{ leases: { path: string }[] }>("lease", "list", "credentials/postgres/")).leases.map((each) => each.path)).toContain(lease.path);
    expect((await json<{ state: string }>("lease", "revoke", lease.path)).state).toBe("STATE_REVOKED");
    const gone = login();
    await expect(gone.connect()).rejects.toThrow();
  });

  it("applies documents, says what changed, and gives them back", async () => {
    mkdirSync(join(folder, "manifests"));
    const policy = { kind: "Policy", name: "readers", principals: ["spiffe://leasehold.dev/ns/x/sa/y"], rules: [{ paths: ["secrets/x/**"], allow: ["read"] }] };
    writeFileSync(join(folder, "manifests", "a.yaml"), `${JSON.stringify(policy)}\n---\nkind: Secret\npath: secrets/x/one\ndata: { k: v }\n`);
    expect((await run("apply", "-f", "manifests", "--dry-run")).out).toBe("policies/readers created (dry run)\nsecrets/x/one created (dry run)\n");
    expect((await run("apply", "-f", "manifests")).out).toBe("policies/readers created\nsecrets/x/one created\n");
    expect((await run("apply", "-f", "manifests")).out).toBe("policies/readers unchanged\nsecrets/x/one unchanged\n");
    writeFileSync(join(folder, "again.yaml"), (await run("get", "policy", "readers")).out);
    expect((await run("apply", "-f", "again.yaml")).out).toBe("policies/readers unchanged\n");
    expect((await run("policy", "explain", "read", "secrets/x/one", "--principal", "spiffe://leasehold.dev/ns/x/sa/y")).out).toContain(
      "allowed by rule 0 of policy readers",
    );
    writeFileSync(join(folder, "all.yaml"), (await run("get", "policies", "-o", "yaml")).out);
    expect((await run("apply", "-f", "all.yaml")).out).not.toMatch(/created|updated/);
    for (const kind of ["targets", "roles"]) {
      writeFileSync(join(folder, "all.yaml"), (await run("get", kind, "-o", "yaml")).out);
      expect((await run("apply", "-f", "all.yaml")).out).toMatch(/^\S+ unchanged\n$/);
    }
    expect((await run("delete", "policy", "readers")).code).toBe(0);
  });

  it("shows the audit and checks it, rotates and rewraps the keyring", async () => {
    expect((await run("audit", "tail", "--last", "50")).out).toContain("SecretService/PutSecret");
    expect((await run("audit", "verify")).out).toMatch(/^ok: [0-9]+ records in [0-9]+ chains/);
    expect((await run("keys", "rotate")).out).toBe("key 2 seals from now on\n");
    expect((await run("keys", "rewrap", "--wait")).out).toContain("succeeded");
    expect((await run("secret", "get", "secrets/demo/smtp", "--field", "user")).out).toBe("demo");
    const { keys } = await json<{ keys: { keyId: number; uses?: string }[] }>("keys", "list");
    expect(keys.map((key) => [key.keyId, Number(key.uses ?? 0) > 0])).toEqual([
      [1, false],
      [2, true],
    ]);
  });

  it("watches, one line as each change comes", async () => {
    const child = spawn(process.execPath, [MAIN, "watch", "secrets/w/**", "--snapshot", "-o", "json"], {
      cwd: folder,
      env: { PATH: process.env["PATH"], HOME: folder },
    });
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    await run("secret", "put", "secrets/w/one", "k=v");
    await until("the event", () => out.includes("EVENT_TYPE_SECRET_VERSION_CREATED"));
    expect(JSON.parse(out.split("\n")[0]!)).toMatchObject({ path: "secrets/w/one", version: "1" });
    const closed = new Promise((done) => child.on("close", done));
    child.kill("SIGINT");
    expect(await closed).toBe(130);
  });

  it("exits with the documented codes", async () => {
    expect((await run("secret", "get", "secrets/none/here")).code).toBe(3);
    expect((await run("secret", "get", "secrets/demo/root/break-glass", "--as", "demo-app")).code).toBe(4);
    expect((await run("secret", "get", "secrets/../etc")).code).toBe(2);
    expect((await run("no-such-command")).code).toBe(2);
    expect((await run("secret", "put", "secrets/demo/smtp", "a=b", "--expected-version", "9")).code).toBe(6);
    expect((await run("whoami", "--address", "127.0.0.1:1", "--timeout", "2s")).code).toBe(5);
    const denied = await run("secret", "get", "secrets/demo/root/break-glass", "--as", "demo-app");
    expect(denied.err).not.toContain("    at ");
  });

  it("a second broker in the same folder is one clear line, and leaves the first alone", async () => {
    const second = await run("dev", "--folder", ".leasehold", "--listen", "127.0.0.1:0");
    expect(second.code).toBe(1);
    expect(second.err.trim().split("\n")).toHaveLength(1);
    expect(second.err).toContain("in use");
    expect(existsSync(join(folder, ".leasehold", "dev.json"))).toBe(true);
    expect((await run("whoami")).code).toBe(0);
  });

  it("doctor looks into the connection", async () => {
    expect(
      (await run("doctor")).out
        .trim()
        .split("\n")
        .every((line) => line.startsWith("ok")),
    ).toBe(true);
    const dev = JSON.parse(readFileSync(join(folder, ".leasehold", "dev.json"), "utf8")) as { clients: Record<string, { key: string }> };
    const wrong = await run("doctor", "--key", join(folder, ".leasehold", dev.clients["demo-app"]!.key));
    expect(wrong.code).toBe(1);
    expect(wrong.out).toContain("FAILED client key");
  });
});
