"""Changes to Gradio's behaviour that this page needs; each module says what and why.

They know Gradio's internals and nothing of ours but the visitor. `tracebacks` keeps visitors' words
out of the log, `spare_apps` halves the time that a page takes to build, `wrong_calls` answers
invalid calls, `memory` frees the data of pages that have gone, `heartbeat` handles many pages that
leave at once, `hub_people` names those who signed in at Hugging Face, and `stub_files` halves the
time of Gradio's import.
"""
