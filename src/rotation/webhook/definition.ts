import { policyViolations } from "../checks.ts";
import { candidateOf, outsideNeeds, outsideViolations, refused, secretPathViolations, timeLeft } from "../outside.ts";
import type { CandidateStep, CreateStep, RotatorDefinition } from "../rotator.ts";
import { urlProblem, type WebhookConfig } from "./config.ts";
import { bodyOf, candidateIn, expireAtIn, type StepName, worksIn } from "./message.ts";
import { post } from "./post.ts";

const MIN_KEY_BYTES = 16;

/** The steps are done by an HTTPS endpoint of somebody else's, which is told generation and deadline and should keep to them; whether it does, nobody here can say. */
export const webhook: RotatorDefinition<WebhookConfig> = {
  name: "webhook",
  abilities: { candidateFromOutside: true, overlap: false, fencing: false, startsFromNothing: true, touchesOutside: true },
  check(config) {
    const problem = urlProblem(config.url);
    return [
      ...(problem === undefined ? [] : [{ field: "url", description: problem }]),
      ...(config.caPem !== undefined && config.url.startsWith("http:") ? [{ field: "ca_pem", description: "must be empty without https" }] : []),
      ...secretPathViolations("signing_secret", config.signingSecret),
      ...outsideViolations(config),
      ...policyViolations(config.passwordPolicy),
    ];
  },
  needs: ({ signingSecret }, path) => outsideNeeds(path, signingSecret),
  open(host) {
    const ask = async (name: StepName, step: CreateStep<WebhookConfig> & Partial<CandidateStep<WebhookConfig>>): Promise<unknown> => {
      const key = (await host.secret(step.config.signingSecret)).get("key")?.value;
      if (key === undefined || key.reveal().length < MIN_KEY_BYTES) throw refused("signing_key");
      const body = bodyOf(name, host.instance, step);
      const now = host.clock.now();
      try {
        return await post(step.config, { body, key, candidateId: step.candidateId, timeoutMs: timeLeft(step, now), signal: step.signal, now });
      } finally {
        body.fill(0);
      }
    };
    const must = async (name: StepName, step: CandidateStep<WebhookConfig>): Promise<unknown> => {
      const answer = await ask(name, step);
      if (answer === undefined) throw refused("not_implemented");
      return answer;
    };
    return {
      async create(step) {
        const answer = await ask("create", step);
        return candidateOf(candidateIn(answer), expireAtIn(answer), step, host.clock.now());
      },
      set: async (step) => void (await must("set", step)),
      test: async (step) => (worksIn(await must("test", step)) ? "works" : "refused"),
      finish: async (step) => void (await ask("finish", step)),
      discard: async (step) => void (await ask("discard", step)),
    };
  },
};
