"""Where Gradio does otherwise than this page needs; each part says what and why.

They know Gradio's insides and nothing of ours. `tracebacks` keeps errors from visitors,
`wrong_calls` answers calls that cannot work, `memory` lets go of pages that are gone, `heartbeat`
takes many leaving at once.
"""
