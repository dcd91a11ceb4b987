import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type RotationContextSchema, RotatorService } from "../../gen/leasehold/v1/rotator_service_pb.ts";
import { parseSpiffeId } from "../../identity/spiffe-id.ts";
import { policyViolations } from "../checks.ts";
import { candidateOf, outsideNeeds, outsideViolations, refused, secretPathViolations, timeLeft, wordOf } from "../outside.ts";
import type { CreateStep, RotatorDefinition, RotatorHost } from "../rotator.ts";
import { call, NotImplemented } from "./channel.ts";
import type { GrpcConfig } from "./config.ts";
import { fromValues, toValues } from "./values.ts";

const ADDRESS = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[1-9][0-9]{0,4}$/;

/** The steps are done by a RotatorService of somebody else's (proto/leasehold/v1/rotator_service.proto, which has the contract), over mTLS. */
export const grpc: RotatorDefinition<GrpcConfig> = {
  name: "grpc",
  abilities: { candidateFromOutside: true, overlap: false, fencing: false, startsFromNothing: true, touchesOutside: true },
  check: (config) => [
    ...(ADDRESS.test(config.address) ? [] : [{ field: "address", description: "must be host:port" }]),
    ...(config.caPem.includes("-----BEGIN CERTIFICATE-----") ? [] : [{ field: "ca_pem", description: "must be certificates in PEM" }]),
    ...(parseSpiffeId(config.spiffeId) === undefined ? [{ field: "spiffe_id", description: "must be a SPIFFE id, spiffe://trust.domain/path" }] : []),
    ...secretPathViolations("client_secret", config.clientSecret),
    ...outsideViolations(config),
    ...policyViolations(config.passwordPolicy),
  ],
  needs: ({ clientSecret }, path) => outsideNeeds(path, clientSecret),
  open(host) {
    const { createCandidate, setCandidate, testCandidate, finishRotation, discardCandidate } = RotatorService.method;
    const context = (step: CreateStep<GrpcConfig>) => contextOf(host.instance, step);
    return {
      async create(step) {
        const answer = await optional(ask(host, createCandidate, { context: context(step), current: toValues(step.current) }, step));
        const expireAt = answer?.expireTime === undefined ? undefined : timestampMs(answer.expireTime);
        return candidateOf(fromValues(answer?.candidate ?? {}), expireAt, step, host.clock.now());
      },
      async set(step) {
        const { current, candidate, givenUp } = step;
        const values = { current: toValues(current), candidate: toValues(candidate), givenUp: givenUp.map((data) => ({ data: toValues(data) })) };
        await required(ask(host, setCandidate, { context: context(step), ...values }, step));
      },
      async test(step) {
        const { works, problem } = await required(ask(host, testCandidate, { context: context(step), candidate: toValues(step.candidate) }, step));
        if (!works) host.log.warn({ rotation: step.path, problem: wordOf(problem, "refused") }, "a rotator service says that a candidate does not work");
        return works ? "works" : "refused";
      },
      async finish(step) {
        await optional(ask(host, finishRotation, { context: context(step), current: toValues(step.candidate), previous: toValues(step.previous) }, step));
      },
      async discard(step) {
        await optional(ask(host, discardCandidate, { context: context(step), current: toValues(step.current), candidate: toValues(step.candidate) }, step));
      },
    };
  },
};

function contextOf(instance: string, step: CreateStep<GrpcConfig>): MessageInitShape<typeof RotationContextSchema> {
  const { path, generation, candidateId, deadlineAt, config } = step;
  return {
    rotation: `rotations/${path}`,
    path,
    generation: BigInt(generation),
    deadline: timestampFromMs(deadlineAt),
    instance,
    parameters: { ...config.parameters },
    candidateId,
  };
}

async function ask<I extends DescMessage, O extends DescMessage>(
  host: RotatorHost,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  step: CreateStep<GrpcConfig>,
): Promise<MessageShape<O>> {
  const { address, caPem, spiffeId, clientSecret } = step.config;
  const own = await host.secret(clientSecret);
  const [certificate, key] = [own.get("certificate")?.value, own.get("key")?.value];
  if (certificate === undefined || key === undefined) throw refused("client_certificate");
  return call(method, request, { address, caPem, spiffeId, certificate, key, timeoutMs: timeLeft(step, host.clock.now()), signal: step.signal });
}

async function optional<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof NotImplemented) return undefined;
    throw error;
  }
}

async function required<T>(answer: Promise<T>): Promise<T> {
  const given = await optional(answer);
  if (given === undefined) throw refused("not_implemented");
  return given;
}
