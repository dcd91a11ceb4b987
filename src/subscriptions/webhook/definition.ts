import type { SinkDefinition } from "../sink.ts";
import { hostProblem } from "../destination.ts";
import { headerProblem } from "./headers.ts";
import { WebhookSink } from "./sink.ts";

export const webhook: SinkDefinition<"webhook"> = {
  kind: "webhook",
  check(config, rules) {
    const violations: { field: string; description: string }[] = [];
    const wrong = (field: string, description: string): unknown => violations.push({ field, description });
    const problem = urlProblem(config.url);
    if (problem !== undefined) wrong("url", problem);
    else {
      const url = new URL(config.url);
      const where = hostProblem(url.hostname.replace(/^\[|\]$/g, ""), url.protocol === "https:", rules);
      if (where !== undefined) wrong("url", where);
      if (url.protocol === "http:" && config.caPem !== undefined) wrong("ca_pem", "must be empty without https");
    }
    for (const [name, value] of Object.entries(config.headers)) {
      const bad = headerProblem(name, value, false);
      if (bad !== undefined) wrong("headers", bad);
    }
    const names = [...Object.keys(config.headers).map((name) => name.toLowerCase()), ...config.secretHeaders];
    if (new Set(names).size !== names.length) wrong("headers", "must name each header once");
    if (config.timeoutMs < 1000 || config.timeoutMs > 60_000) wrong("timeout", "must be from 1 s to 60 s");
    return violations;
  },
  destination: ({ url, caPem }) => ({ url, caPem }),
  open: (config, secrets, rules, render) => new WebhookSink(config, secrets, rules, render),
};

/** The text must be the URL in its one canonical form: what is checked is what is used. */
function urlProblem(text: string): string | undefined {
  if (!URL.canParse(text)) return "must be a URL";
  const url = new URL(text);
  if (url.protocol !== "https:" && url.protocol !== "http:") return "must begin with https://";
  if (url.username !== "" || url.password !== "") return "must not hold a user or password: use secret_headers";
  if (url.hash !== "") return "must not have a fragment";
  if (!/^[\x21-\x7e]+$/.test(text)) return "must be printable ASCII";
  return undefined;
}
