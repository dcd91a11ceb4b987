export interface Signals {
  readonly traces: boolean;
  readonly metrics: boolean;
  readonly logs: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Which signals the environment asks for. Unlike the SDK's own default, nothing named means nothing sent. */
export function signalsOf(env: Env): Signals {
  if (env["OTEL_SDK_DISABLED"]?.trim().toLowerCase() === "true") return { traces: false, metrics: false, logs: false };
  const on = (signal: "TRACES" | "METRICS" | "LOGS"): boolean => {
    const exporters = (env[`OTEL_${signal}_EXPORTER`] ?? "")
      .split(",")
      .map((name) => name.trim())
      .filter((name) => name !== "");
    if (exporters.length > 0) return !exporters.includes("none");
    return isSet(env["OTEL_EXPORTER_OTLP_ENDPOINT"]) || isSet(env[`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`]);
  };
  return { traces: on("TRACES"), metrics: on("METRICS"), logs: on("LOGS") };
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== "";
}
