"""The handlers of the page's events.

They join `conversation` and `view`. `arrival` handles pages that open, return and leave;
`chat_and_document` the buttons and boxes; `answering` makes updates of a reply, `targets` says
where it goes. Around a message: `message_actions`, `comparison`, `probabilities`, `shown_prompt`,
`counting` of tokens. Around a conversation: `sidebar` and `titles`, `memory_files` (with `tickets`
for their addresses), `books`, `presets`, `everything` (delete all). `questions` numbers what a part
of the page asks, `page_files` has what browsers fetch later. `laboratory` and `inspection` answer
the second tab, `endpoints` programs (gradio_client).
"""
