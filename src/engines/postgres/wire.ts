import type { Duplex } from "node:stream";
import pg from "pg";
import { Frames } from "./frames.ts";

/** How a server asked for the password, or didn't, in a way that we don't answer. */
export class AuthenticationRefused extends Error {
  override readonly name = "AuthenticationRefused";
}

/** What pg's Connection has beside its published types. */
interface WireConnection extends pg.Connection {
  attachListeners(stream: Duplex): void;
}
const WireConnection = pg.Connection as unknown as new (config: pg.ClientConfig) => WireConnection;

/**
 * A connection that proves the password by SCRAM and no other way. pg by itself answers a request for the password in clear, or for its
 * MD5, and takes a server that asks for nothing (finding 23); whoever may edit a target's address would be handed the password,
 * or the verifiers. Here the server must have shown that it knows the verifier before anything but SCRAM is sent.
 *
 * It also survives malformed messages: what pg's parser throws in a socket's event handler would end the process.
 */
export class ScramConnection extends WireConnection {
  #challenged = false;
  #proven = false;
  #authenticated = false;
  #refused = false;

  override attachListeners(stream: Duplex): void {
    const others = new Set(stream.listeners("data"));
    super.attachListeners(stream);
    for (const listener of stream.listeners("data").filter((one) => !others.has(one))) {
      stream.off("data", listener as (chunk: Buffer) => void);
      const frames = new Frames();
      stream.on("data", (chunk: Buffer) => {
        if (this.#refused) return;
        try {
          const messages = frames.push(chunk);
          if (messages !== undefined) listener.call(stream, messages);
        } catch (error) {
          this.emit("error", error);
        }
      });
    }
  }

  /** The one method by which pg sends a password, clear or MD5. */
  password(): void {
    this.#refuse();
  }

  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (this.#refused && event !== "end") return false;
    switch (event) {
      case "authenticationCleartextPassword":
      case "authenticationMD5Password":
        return this.#refuse();
      case "authenticationSASLContinue":
        this.#challenged = true;
        break;
      case "authenticationSASLFinal":
        if (!this.#challenged) return this.#refuse();
        super.emit(event, ...values); // pg checks the server's signature here, and emits an error if it is wrong
        this.#proven = !this.#refused;
        return true;
      case "authenticationOk":
        if (!this.#proven) return this.#refuse();
        this.#authenticated = true;
        break;
      case "readyForQuery":
        if (!this.#authenticated) return this.#refuse();
        break;
      case "error":
        super.emit(event, ...values);
        this.#refused = true;
        this.stream.destroy();
        return true;
      default:
    }
    return super.emit(event, ...values);
  }

  #refuse(): boolean {
    return this.emit("error", new AuthenticationRefused("the server did not authenticate by SCRAM"));
  }
}
