"""The server's API through the `openai` package: a second turn reads only what is new."""

import sys

from openai import OpenAI

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
client = OpenAI(base_url=f"{address}/v1", api_key="unused")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "My name is Ada."}]
for question in ("What is my name?", None):
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"prompt_cache_key": "example"},
    )
    reply, usage = "", None
    for chunk in stream:
        reply += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    print(reply)
    cached = usage.prompt_tokens_details.cached_tokens
    print(f"({usage.prompt_tokens} tokens of prompt, {cached} of them not read again)")
    messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": question}]
