import type { ChannelOptions } from "@grpc/grpc-js";

/** What the front takes from the network; times in milliseconds. */
export interface FrontLimits {
  /** Open connections, those still in their handshake counted. */
  readonly maxConnections: number;
  /** Open connections of one IP address; unix sockets are not counted. */
  readonly maxConnectionsPerAddress: number;
  /** Handshakes under way: each costs 2 ms of CPU, and whoever makes them is not known yet. */
  readonly maxHandshakes: number;
  readonly handshakeMs: number;
  /** How long a connection whose certificate ended or was revoked still answers, with that reason alone, before it is closed. Longer than the pipeline's sweep. */
  readonly lingerMs: number;
  /** `refuse: explain`: how long a connection lives that nobody may use. */
  readonly explainMs: number;
  /** After a change of a trust bundle: how long calls and streams on older connections may go on. */
  readonly renewMs: number;
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  /** Streams (calls) at a time on one connection. */
  readonly maxConcurrentStreams: number;
  /** Connections end at this age ±10 % (grpc-js adds the jitter), so that clients spread over replicas and prove themselves anew. */
  readonly maxAgeMs: number;
  readonly maxAgeGraceMs: number;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
}

export const DEFAULT_FRONT_LIMITS: FrontLimits = {
  maxConnections: 10_000,
  maxConnectionsPerAddress: 5000,
  maxHandshakes: 256,
  handshakeMs: 5000,
  lingerMs: 2000,
  explainMs: 10_000,
  renewMs: 30_000,
  maxReceiveBytes: 4 * 1024 * 1024,
  maxSendBytes: 4 * 1024 * 1024,
  maxConcurrentStreams: 1000,
  maxAgeMs: 3_600_000,
  maxAgeGraceMs: 60_000,
  keepaliveMs: 30_000,
  keepaliveTimeoutMs: 10_000,
};

/** For the grpc-js server behind the front. All of them were seen to work on injected connections (spikes.md, section 1). */
export function createGrpcServerOptions(limits: FrontLimits = DEFAULT_FRONT_LIMITS): ChannelOptions {
  return {
    "grpc.enable_channelz": 0,
    "grpc.max_receive_message_length": limits.maxReceiveBytes,
    "grpc.max_send_message_length": limits.maxSendBytes,
    "grpc.max_concurrent_streams": limits.maxConcurrentStreams,
    "grpc.max_connection_age_ms": limits.maxAgeMs,
    "grpc.max_connection_age_grace_ms": limits.maxAgeGraceMs,
    "grpc.keepalive_time_ms": limits.keepaliveMs,
    "grpc.keepalive_timeout_ms": limits.keepaliveTimeoutMs,
  };
}
