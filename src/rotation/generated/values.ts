import { generateKeyPair, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import { randomPooled } from "../../base/random.ts";
import { Sensitive } from "../../base/sensitive.ts";
import { newPassword } from "../../engines/generate.ts";
import type { SecretValue } from "../../model/secret.ts";
import type { GeneratedField, KeyAlgorithm } from "./config.ts";

const generate = promisify(generateKeyPair);

/** Makes one field, or the two of a key pair. RSA is made on another thread and may take seconds. */
export async function newFields(field: GeneratedField): Promise<[name: string, value: SecretValue][]> {
  switch (field.kind) {
    case "password":
      return [[field.name, { kind: "text", value: newPassword(field.policy) }]];
    case "random":
      return [[field.name, randomValue(field.size, field.encoding)]];
    case "key_pair": {
      const { privateKey, publicKey } = await newKeyPair(field.algorithm);
      return [
        [field.name, { kind: "text", value: Sensitive.text(privateKey.export({ type: "pkcs8", format: "pem" }) as string) }],
        [field.publicName, { kind: "text", value: Sensitive.text(publicKey.export({ type: "spki", format: "pem" }) as string) }],
      ];
    }
  }
}

function randomValue(size: number, encoding: "base64url" | "hex" | "raw"): SecretValue {
  const bytes = randomPooled(size);
  if (encoding === "raw") return { kind: "bytes", value: new Sensitive(bytes) };
  const value = Sensitive.text(bytes.toString(encoding));
  bytes.fill(0);
  return { kind: "text", value };
}

function newKeyPair(algorithm: KeyAlgorithm): Promise<{ readonly privateKey: KeyObject; readonly publicKey: KeyObject }> {
  switch (algorithm) {
    case "ed25519":
      return generate("ed25519");
    case "x25519":
      return generate("x25519");
    case "ec_p256":
      return generate("ec", { namedCurve: "P-256" });
    case "ec_p384":
      return generate("ec", { namedCurve: "P-384" });
    case "rsa_2048":
      return generate("rsa", { modulusLength: 2048 });
    case "rsa_3072":
      return generate("rsa", { modulusLength: 3072 });
    case "rsa_4096":
      return generate("rsa", { modulusLength: 4096 });
  }
}
