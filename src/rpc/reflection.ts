import { create, createRegistry, type DescFile, type MessageInitShape, type Registry, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { ServerDuplexStream, UntypedServiceImplementation } from "@grpc/grpc-js";
import { type ServerReflectionRequest, ServerReflectionRequestSchema, ServerReflectionResponseSchema } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { LeaseholdError } from "../base/errors.ts";
import { decode, toBuffer } from "./definition.ts";
import { grpcError } from "./status.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;
type Duplex = ServerDuplexStream<Buffer, Buffer>;

const NOT_FOUND = { case: "errorResponse", value: { errorCode: 5, errorMessage: "not found" } } as const;

/**
 * grpc.reflection from the descriptors that are in memory anyway. v1 and v1alpha are the same bytes under two names, so both are read and
 * written with v1's schema (grpcurl asks for v1alpha when it is old).
 */
export class Reflection {
  readonly #files: readonly DescFile[];
  readonly #registry: Registry;
  readonly #encoded = new Map<string, Uint8Array>();
  readonly #services: readonly string[];
  readonly #open = new Set<Duplex>();

  /** @param roots files of the services to show; what they import is served too. */
  constructor(roots: readonly DescFile[]) {
    this.#files = closure(roots);
    this.#registry = createRegistry(...this.#files);
    this.#services = [...new Set(roots.flatMap((file) => file.services.map((service) => service.typeName)))].toSorted();
  }

  handlers(): UntypedServiceImplementation {
    return { serverReflectionInfo: (stream: Duplex) => this.#serve(stream) };
  }

  /** Ends every open stream; for the drain. */
  end(): void {
    for (const stream of this.#open) stream.emit("error", grpcError(new LeaseholdError("DRAINING"), ""));
    this.#open.clear();
  }

  #serve(stream: Duplex): void {
    this.#open.add(stream);
    const forget = (): void => void this.#open.delete(stream);
    stream.once("cancelled", forget);
    stream.once("close", forget);
    stream.on("data", (bytes: Buffer) => {
      if (!this.#open.has(stream)) return;
      try {
        const request = decode(ServerReflectionRequestSchema, bytes);
        const response = { validHost: request.host, originalRequest: request, messageResponse: this.#answer(request.messageRequest) };
        if (!stream.write(toBuffer(toBinary(ServerReflectionResponseSchema, create(ServerReflectionResponseSchema, response))))) {
          stream.pause();
          stream.once("drain", () => stream.resume());
        }
      } catch (cause) {
        forget();
        stream.emit("error", grpcError(new LeaseholdError("REQUEST_INVALID", undefined, { cause }), ""));
      }
    });
    stream.on("end", () => {
      forget();
      stream.end();
    });
  }

  #answer(request: ServerReflectionRequest["messageRequest"]): Answer {
    switch (request.case) {
      case "listServices":
        return { case: "listServicesResponse", value: { service: this.#services.map((name) => ({ name })) } };
      case "fileByFilename":
        return this.#file(this.#files.find((file) => file.proto.name === request.value));
      case "fileContainingSymbol":
        return this.#file(fileOf(this.#registry, request.value));
      case "fileContainingExtension":
        return this.#extension(request.value.containingType, request.value.extensionNumber);
      case "allExtensionNumbersOfType":
        return this.#extensions(request.value);
      case undefined:
        return NOT_FOUND;
    }
  }

  #extension(typeName: string, number: number): Answer {
    const extendee = this.#registry.getMessage(typeName);
    return this.#file(extendee && this.#registry.getExtensionFor(extendee, number)?.file);
  }

  #extensions(typeName: string): Answer {
    if (this.#registry.getMessage(typeName) === undefined) return NOT_FOUND;
    const extensionNumber: number[] = [];
    for (const desc of this.#registry) if (desc.kind === "extension" && desc.extendee.typeName === typeName) extensionNumber.push(desc.number);
    return { case: "allExtensionNumbersResponse", value: { baseTypeName: typeName, extensionNumber } };
  }

  #file(file: DescFile | undefined): Answer {
    if (file === undefined) return NOT_FOUND;
    return { case: "fileDescriptorResponse", value: { fileDescriptorProto: closure([file]).map((each) => this.#bytes(each)) } };
  }

  #bytes(file: DescFile): Uint8Array {
    let bytes = this.#encoded.get(file.name);
    if (bytes === undefined) this.#encoded.set(file.name, (bytes = toBinary(FileDescriptorProtoSchema, file.proto)));
    return bytes;
  }
}

/** A symbol can be a method or field: then its parent's file. */
function fileOf(registry: Registry, symbol: string): DescFile | undefined {
  let name = symbol;
  for (let up = 0; up < 2 && name !== ""; up++) {
    const desc = registry.get(name);
    if (desc !== undefined) return desc.file;
    name = name.slice(0, Math.max(name.lastIndexOf("."), 0));
  }
  return undefined;
}

/** The files and everything they import, each once, imports after importers. */
function closure(roots: readonly DescFile[]): DescFile[] {
  const seen = new Map<string, DescFile>();
  const visit = (file: DescFile): void => {
    if (seen.has(file.name)) return;
    seen.set(file.name, file);
    file.dependencies.forEach(visit);
  };
  roots.forEach(visit);
  return [...seen.values()];
}
