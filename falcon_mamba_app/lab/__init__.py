"""The laboratory: what a memory of constant size can do, measured through the service.

`attention` computes what a cache of keys and values would take, `texts` makes texts of any length,
`asking` sends requests within the limits of whoever runs them. `growth` reads one long text and
tells speed and memory on the way. `probe` hides `facts` in texts and asks for them; `answers` are
its plan and what came of it, `intervals` how far that can be trusted. `values` checks what a page
or a program asks for. Nothing here knows HTTP, pages or tensors.
"""
