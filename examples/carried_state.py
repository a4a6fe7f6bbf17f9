"""A conversation that is saved, opened again and branched: its whole memory is one small file."""

from falcon_mamba_app.offline import OfflineModel

model = OfflineModel("nano")
chat = model.chat()
print(chat.send("My name is Ada.", seed=1))

memory = chat.save()
print(f"everything that was said: {len(memory):,} bytes")

again = model.chat()  # on this machine or another one, with the same model
again.load(memory, chat.messages)
print(again.send("What is my name?", seed=1))

chat.undo()  # back to the beginning, at the price of a copy
print(chat.send("My name is Bob.", seed=1))
