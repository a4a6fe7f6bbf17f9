"""The handlers of the page's events.

They join `conversation` and `view`. `chat_and_document` handles the buttons and boxes, `answering`
makes updates of a reply, `targets` shows it, `arrival` handles pages that open, return and leave,
`endpoints` does the same for programs (gradio_client), and `laboratory` answers the second tab.
"""
