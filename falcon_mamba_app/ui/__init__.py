"""The page, drawn by Gradio over a GenerationService.

It knows no model, no tensor and no API. `page` wires it together: `view` draws and knows no
session, `conversation` holds what is said and knows no component, `events` is what a click does
with both, `gradio_patches` is what Gradio does otherwise than we need. `share_link` opens a public
link.
"""
