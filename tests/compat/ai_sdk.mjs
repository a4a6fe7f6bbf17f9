// Vercel's AI SDK against the server whose address is the first argument: an object by a schema, a
// stream, and a tool. The packages are those of the folder in which node was started.
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { generateObject, generateText, streamText, tool, stepCountIs } = require("ai");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { z } = require("zod");

const provider = createOpenAICompatible({
  name: "falcon",
  baseURL: `${process.argv[2]}/v1`,
  apiKey: "k",
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const model = provider("nano");
const prompt = "Who lives here?";
const schema = z.object({
  name: z.string().max(12),
  age: z.number().int().min(0).max(120),
  mood: z.enum(["good", "bad"]),
});
const limits = { maxRetries: 0, seed: 1 };

const { object } = await generateObject({ model, schema, prompt, maxOutputTokens: 300, ...limits });
const streamed = streamText({ model, prompt, maxOutputTokens: 20, ...limits });
let text = "";
for await (const piece of streamed.textStream) text += piece;

let numCalled = 0;
const who = tool({
  description: "Who lives here",
  inputSchema: z.object({}),
  execute: async () => {
    numCalled += 1;
    return "Ada lives here.";
  },
});
const { steps } = await generateText({
  model,
  prompt,
  tools: { who },
  // The first step has to call; the second one answers with what has come back.
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  stopWhen: stepCountIs(2),
  maxOutputTokens: 60,
  ...limits,
});
console.log(
  JSON.stringify({
    object,
    text,
    usage: await streamed.usage,
    numCalled,
    numSteps: steps.length,
  }),
);
