"""The page, drawn by Gradio over a GenerationService.

It knows no model, no tensor and no API. `page` puts it together: `view/` draws and knows no
session, `conversation/` holds the conversations and knows no component, `events/` handles clicks
with both, `wiring` connects events to handlers, and `gradio_patches/` changes Gradio where it does
not fit. `share_link` opens a public link.
"""

from falcon_mamba_app.ui.gradio_patches.stub_files import write_no_stub_files

write_no_stub_files()
