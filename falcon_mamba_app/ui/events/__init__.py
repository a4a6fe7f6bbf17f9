"""What happens on the page when somebody does something.

It joins `conversation` and `view`. `chat_and_document` are the buttons and boxes, `answering` a
reply from text to updates, `targets` where it is shown, `arrival` how pages open, return and leave,
and `endpoints` the same for programs (gradio_client).
"""
