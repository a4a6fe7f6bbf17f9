"""The page's endpoints through `gradio_client`: a visitor with a conversation of its own."""

import sys

from gradio_client import Client

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
client = Client(address, verbose=False)
print(client.predict("My name is Ada.", api_name="/chat"))
for reply in client.submit("What is my name?", seed=7, api_name="/chat"):
    print(reply)  # the reply so far, several times a second
client.predict(api_name="/clear")
client.close()
