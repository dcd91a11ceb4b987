import { isIP } from "node:net";
import type { SinkDefinition } from "../sink.ts";
import { hostProblem } from "../destination.ts";
import { RedisStreamSink } from "./sink.ts";

const HOST = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$/;

export const redisStream: SinkDefinition<"redis_stream"> = {
  kind: "redis_stream",
  check(config, rules) {
    const violations: { field: string; description: string }[] = [];
    const wrong = (field: string, description: string): unknown => violations.push({ field, description });
    if (!HOST.test(config.host) && isIP(config.host) === 0) wrong("host", "must be a host name or an IP address");
    else {
      const where = hostProblem(config.host, config.tls, rules);
      if (where !== undefined) wrong("host", where);
    }
    if (!config.tls && config.caPem !== undefined) wrong("tls_mode", "must be verify-full when a CA is set");
    if (config.username !== undefined && !/^[\x21-\x7e]+$/.test(config.username)) wrong("username", "must be printable ASCII");
    if (!/^[\x21-\x7e]+$/.test(config.key)) wrong("key", "must be printable ASCII");
    if (config.timeoutMs < 1000 || config.timeoutMs > 60_000) wrong("timeout", "must be from 1 s to 60 s");
    return violations;
  },
  destination: ({ host, port, tls, caPem, username }) => ({ host, port, tls, caPem, username }),
  open: (config, secrets, rules, render) => new RedisStreamSink(config, secrets, rules, render),
};
