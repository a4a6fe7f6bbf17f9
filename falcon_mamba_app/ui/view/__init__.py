"""The look of the page: pure functions and components.

It knows no session and no service. `layout` places the components, `theme` and `head` style them,
`controls` draws the sampling sliders. `updates` holds the changes of one event, `readiness` shows
the model's status, `metrics_panel` the live figures, and `message_text` makes texts safe to show.
"""
