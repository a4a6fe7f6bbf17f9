"""The look of the page: pure functions and components.

It knows no session and no service. `layout` places the components, `parts` are those that the
page's own scripts draw, `theme` and `head` style and load them; `scripts` says which come later.
`controls` draws the sampling sliders, `answer_form` the form of replies, `messages` a conversation,
`panel` the memory and the figures, `laboratory` the second tab. `readiness` shows the model's
status, and `updates` holds the changes of one event.
"""
