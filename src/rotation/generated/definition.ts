import { passwordPolicyViolation } from "../../engines/generate.ts";
import type { SecretData } from "../../model/secret.ts";
import type { RotatorDefinition, Violation } from "../rotator.ts";
import { KEY_ALGORITHMS, type GeneratedConfig, type GeneratedField } from "./config.ts";
import { newFields } from "./values.ts";

/** Values that the broker makes and nobody outside must be told of: whoever reads CURRENT has the new one. */
export const generated: RotatorDefinition<GeneratedConfig> = {
  name: "generated",
  abilities: { candidateFromOutside: false, overlap: true, fencing: true, startsFromNothing: true, touchesOutside: false },
  needs: () => [],
  check: ({ fields }) => [...fields.flatMap((field, i) => fieldViolations(field, `fields[${i}]`)), ...nameViolations(fields)],
  open: () => ({
    async create({ config, current }) {
      const made = await Promise.all(config.fields.map(newFields));
      return { data: new Map([...(current ?? (new Map() as SecretData)), ...made.flat()]) };
    },
    set: async () => {},
    test: async () => "works",
  }),
};

function fieldViolations(field: GeneratedField, at: string): Violation[] {
  switch (field.kind) {
    case "password": {
      const found = field.policy === undefined ? undefined : passwordPolicyViolation(field.policy);
      return found === undefined ? [] : [{ field: `${at}.password.${found.field}`, description: found.description }];
    }
    case "random":
      return field.size >= 16 && field.size <= 1024 ? [] : [{ field: `${at}.random.size`, description: "must be from 16 to 1,024" }];
    case "key_pair":
      return KEY_ALGORITHMS.includes(field.algorithm) ? [] : [{ field: `${at}.key_pair.algorithm`, description: "is not known" }];
  }
}

function nameViolations(fields: readonly GeneratedField[]): Violation[] {
  const seen = new Set<string>();
  return fields.flatMap((field, i) =>
    (field.kind === "key_pair" ? [field.name, field.publicName] : [field.name]).flatMap((name) => {
      const twice = seen.has(name);
      seen.add(name);
      return twice ? [{ field: `fields[${i}].name`, description: "is made twice" }] : [];
    }),
  );
}
