"""Texts from a model in this process, without a server."""

from falcon_mamba_app.offline import OfflineModel

model = OfflineModel("nano")  # or "falcon-mamba-7b-instruct", a hub id, a folder
for text in model.generate(["Once upon a time", "The sun is"], max_new_tokens=20, seed=1):
    print(repr(text))
for piece in model.stream([{"role": "user", "content": "Hello!"}], max_new_tokens=20, seed=1):
    print(piece, end="", flush=True)
print()
