import { create, type DescMessage, type DescMethod, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { MethodDefinition } from "@grpc/grpc-js";
import type { Authorized } from "./call.ts";
import { Encoded, frame } from "./encoded.ts";
import type { Out } from "./out.ts";

/** What a generated service looks like to the compiler. */
export interface ServiceShape {
  readonly typeName: string;
  readonly method: Record<string, DescMethod>;
}

/** A message, or its bytes where a handler has them. */
export type Answer<O extends DescMessage> = MessageInitShape<O> | Encoded<O>;

/** Answers at once or by a promise; the hot path answers at once. Throws or rejects with LeaseholdError. */
export type UnaryHandler<I extends DescMessage, O extends DescMessage> = (request: MessageShape<I>, call: Authorized) => Answer<O> | Promise<Answer<O>>;

/** The stream ends well when the promise resolves, with the error's status when it rejects. */
export type StreamHandler<I extends DescMessage, O extends DescMessage> = (request: MessageShape<I>, call: Authorized, out: Out<O>) => Promise<void>;

/** The handlers of a service: one per rpc, demanded by the compiler. */
export type Handlers<S extends ServiceShape> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends {
    methodKind: "unary";
    input: infer I extends DescMessage;
    output: infer O extends DescMessage;
  }
    ? UnaryHandler<I, O>
    : S["method"][K] extends { methodKind: "server_streaming"; input: infer I extends DescMessage; output: infer O extends DescMessage }
      ? StreamHandler<I, O>
      : never;
};

/** The `:path` of a method: `/leasehold.v1.SecretService/GetSecret`. */
export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** grpc-js calls `.copy` on what it sends, so it must be a Buffer; this shares the memory. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Throws on malformed bytes. `bytes` fields of the result are views of plain Uint8Arrays, not Buffers. */
export function decode<I extends DescMessage>(schema: I, bytes: Buffer): MessageShape<I> {
  return fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), { readUnknownFields: false });
}

export function encode<O extends DescMessage>(schema: O, message: Answer<O>): Buffer {
  if (message instanceof Encoded) return message.bytes;
  return toBuffer(toBinary(schema, create(schema, message)));
}

/** As `encode`, framed for a stream. */
export function encodeFrame<O extends DescMessage>(schema: O, message: Answer<O>): Buffer {
  return message instanceof Encoded ? message.frame : frame(toBinary(schema, create(schema, message)));
}

/**
 * Lets bytes through in both directions: grpc-js answers a failed (de)serialization with the exception's text, so the pipeline does
 * both itself, where it owns the exit.
 */
export function rawMethod(method: DescMethod): MethodDefinition<Buffer, Buffer> {
  const same = (bytes: Buffer): Buffer => bytes;
  return {
    path: methodPath(method),
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}
