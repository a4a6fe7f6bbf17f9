"""What the page looks like: pure functions and components.

It knows no session and no service. `layout` places the components, `theme` and `head` are their
style, `controls` the sampling sliders; `updates` is what one event changes, `readiness` what
depends on the model's status, `metrics_panel` the live figures, `message_text` how words are shown.
"""
