import type { Command } from "commander";

/** Shown at the end of each command's --help; a test runs every line through the parser. */
export const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  whoami: ["leasehold whoami", "leasehold whoami --as demo-app"],
  "secret put": [
    "leasehold secret put secrets/payments/stripe user=svc key=@key.txt",
    "openssl rand -hex 32 | leasehold secret put secrets/payments/seed value=-",
    "leasehold secret put secrets/payments/stripe key=@key.txt --expected-version 3",
  ],
  "secret get": [
    "leasehold secret get secrets/payments/stripe",
    "leasehold secret get secrets/payments/stripe --field key > key.txt",
    "leasehold secret get secrets/payments/stripe --label PREVIOUS -o json",
  ],
  "secret list": ["leasehold secret list", "leasehold secret list secrets/payments/ -o json"],
  "secret versions": ["leasehold secret versions secrets/payments/stripe"],
  "secret describe": ["leasehold secret describe secrets/payments/stripe"],
  "secret update": ["leasehold secret update secrets/payments/stripe --label team=payments env=prod --max-versions 20"],
  "secret rollback": ["leasehold secret rollback secrets/payments/stripe --to 2"],
  "secret delete": ["leasehold secret delete secrets/payments/stripe --versions 1 2", "leasehold secret delete secrets/payments/stripe --recovery-window 30d"],
  "secret undelete": ["leasehold secret undelete secrets/payments/stripe --versions 1,2"],
  "secret destroy": ["leasehold secret destroy secrets/payments/stripe --versions 1"],
  "secret restore": ["leasehold secret restore secrets/payments/stripe"],
  "creds issue": [
    "leasehold creds issue credentials/postgres/demo-ro --ttl 10m",
    "leasehold creds issue credentials/postgres/demo-ro -o json | jq -r .data.password",
  ],
  "lease list": ["leasehold lease list", "leasehold lease list credentials/postgres/ --state active revoking"],
  "lease get": ["leasehold lease get leases/5b0a82df-88fd-44cc-857f-f50117cdf714"],
  "lease renew": ["leasehold lease renew leases/5b0a82df-88fd-44cc-857f-f50117cdf714 --increment 30m"],
  "lease forget": ["leasehold lease forget leases/5b0a82df-88fd-44cc-857f-f50117cdf714 --reason 'the server is gone'"],
  "lease revoke": [
    "leasehold lease revoke leases/5b0a82df-88fd-44cc-857f-f50117cdf714",
    "leasehold lease revoke --prefix credentials/postgres/payments/ --wait",
    "leasehold lease revoke --principal spiffe://acme.test/ns/payments/sa/api",
  ],
  "rotation put": [
    "leasehold rotation put secrets/payments/api --generate token --interval 30d --jitter 6h",
    "leasehold rotation put secrets/payments/api -g token=random key=ed25519 -c '0 3 * * SUN' --time-zone Europe/Berlin --window 2h --now",
    "leasehold rotation put secrets/payments/db --postgres orders -u app_a app_b --owner app_owner -i 30d --now --wait",
    "leasehold rotation put secrets/payments/cache --redis cache -u app -i 7d",
    "leasehold rotation put secrets/payments/psp --webhook https://ops.internal/rotate --signing-secret secrets/ops/rotate-key --before-expiry 7d",
    "leasehold rotation put secrets/payments/api -i 7d",
  ],
  "rotation get": ["leasehold rotation get secrets/payments/api", "leasehold rotation get secrets/payments/api -o json"],
  "rotation list": ["leasehold rotation list", "leasehold rotation list secrets/payments/ --stuck"],
  "rotation now": ["leasehold rotation now secrets/payments/api", "leasehold rotation now secrets/payments/db --wait --timeout 2m"],
  "rotation abort": ["leasehold rotation abort secrets/payments/api"],
  "rotation resume": ["leasehold rotation resume secrets/payments/api"],
  "rotation delete": ["leasehold rotation delete secrets/payments/api"],
  "rotation credential": [
    "leasehold rotation credential secrets/payments/api",
    "leasehold rotation credential secrets/payments/api -o json | jq -r .data.token",
  ],
  watch: ["leasehold watch 'secrets/payments/**' --snapshot", "leasehold watch 'credentials/**' --type lease_issued lease_expired -o json"],
  "subscription list": ["leasehold subscription list", "leasehold subscription list -o json"],
  "subscription get": ["leasehold subscription get payments-hook"],
  "subscription pause": ["leasehold subscription pause payments-hook"],
  "subscription resume": ["leasehold subscription resume payments-hook", "leasehold subscription resume payments-hook --from snapshot"],
  "subscription delete": ["leasehold subscription delete payments-hook"],
  "subscription consume": ["leasehold subscription consume worker -o json", "leasehold subscription consume worker --count 1 --no-ack"],
  "subscription dead-letters": ["leasehold subscription dead-letters payments-hook"],
  "subscription replay": [
    "leasehold subscription replay payments-hook --all",
    "leasehold subscription replay payments-hook 0f2f7a52-3b0d-4a8e-9a52-3f6f0a2b8f11",
  ],
  "subscription discard": ["leasehold subscription discard payments-hook 0f2f7a52-3b0d-4a8e-9a52-3f6f0a2b8f11"],
  "policy list": ["leasehold policy list"],
  "policy get": ["leasehold policy get payments-api"],
  "policy delete": ["leasehold policy delete payments-api"],
  "policy explain": [
    "leasehold policy explain read secrets/payments/stripe",
    "leasehold policy explain issue credentials/postgres/demo-ro --ttl 2h --principal spiffe://acme.test/ns/payments/sa/api",
  ],
  apply: ["leasehold apply -f manifests/ --dry-run", "leasehold apply -f policy.yaml"],
  get: ["leasehold get policies", "leasehold get policy payments-api -o yaml > policy.yaml", "leasehold get role credentials/postgres/demo-ro"],
  delete: ["leasehold delete policy payments-api", "leasehold delete role credentials/postgres/demo-ro"],
  "audit tail": ["leasehold audit tail --last 50", "leasehold audit tail -f --path 'secrets/payments/**' -o json"],
  "audit verify": ["leasehold audit verify"],
  "keys list": ["leasehold keys list"],
  "keys rotate": ["leasehold keys rotate"],
  "keys rewrap": ["leasehold keys rewrap --wait"],
  "operation list": ["leasehold operation list"],
  "operation get": ["leasehold operation get operations/0f2f7a52-3b0d-4a8e-9a52-3f6f0a2b8f11"],
  "operation wait": ["leasehold operation wait operations/0f2f7a52-3b0d-4a8e-9a52-3f6f0a2b8f11"],
  "operation cancel": ["leasehold operation cancel operations/0f2f7a52-3b0d-4a8e-9a52-3f6f0a2b8f11"],
  "target rotate-login": ["leasehold target rotate-login demo"],
  "target scan": ["leasehold target scan demo --wait", "leasehold target scan demo --drop-orphans"],
  findings: ["leasehold findings", "leasehold findings --all -o json"],
  "quarantine list": ["leasehold quarantine list"],
  "quarantine release": ["leasehold quarantine release demo"],
  "quarantine revoke": ["leasehold quarantine revoke demo --wait"],
  "target test": ["leasehold target test payments-db --role credentials/postgres/payments/ro"],
  "target bootstrap": [
    "PGHOST=db.acme.test PGUSER=postgres PGPASSFILE=~/.pgpass leasehold target bootstrap --password-file broker.pw --allow-group app_readers",
    "leasehold target bootstrap --print --password-file broker.pw --allow-group app_readers > bootstrap.sql",
  ],
  info: ["leasehold info"],
  doctor: ["leasehold doctor", "leasehold doctor --address broker.acme.test:8443 --cert me.crt --key me.key --ca ca.crt"],
  dev: ["leasehold dev --listen 127.0.0.1:9443"],
  server: ["leasehold server --config /etc/leasehold/leasehold.yaml"],
  migrate: ["leasehold migrate --config leasehold.yaml --check"],
  "check-config": ["leasehold check-config leasehold.yaml"],
  version: ["leasehold version"],
};

/** Adds its examples to every command that does something. */
export function addExamples(program: Command): void {
  for (const [name, command] of leaves(program)) {
    const lines = EXAMPLES[name] ?? [];
    if (lines.length > 0) command.addHelpText("after", `\nExamples:\n${lines.map((line) => `  $ ${line}`).join("\n")}`);
  }
}

/** Every command without subcommands, by its full name. */
export function leaves(command: Command, prefix = ""): [name: string, command: Command][] {
  return command.commands.flatMap((child): [string, Command][] => {
    const name = `${prefix}${child.name()}`;
    return child.commands.length === 0 ? [[name, child]] : leaves(child, `${name} `);
  });
}
