/* Save and open: the conversation with its memory as one file. The server gives a ticket for each
   transfer (ui/events/memory_files.py). A file may also be dropped anywhere on the page. */
(() => {
  const TEXT = /\.(txt|md|markdown|csv|tsv|json|log|py|js|ts|html|css|c|h|cpp|rs|go|java|sh|toml|ya?ml|xml|tex)$/i;
  const MAX_TEXT_BYTES = 8_000;
  let opening = null; // the file that waits for its ticket

  const problemOf = async (answer) =>
    (await answer.json().catch(() => null))?.detail ?? `the server answered ${answer.status}`;
  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

  function fileName() {
    const first = window.conversation.messages().find((message) => message.role === "user");
    const words = (first?.text ?? "conversation").match(/[\p{L}\p{N}]+/gu)?.slice(0, 5).join("-");
    return `${(words ?? "conversation").slice(0, 40)}.safetensors`;
  }

  async function save(ticket) {
    const answer = await fetch(`memory/${ticket}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(await problemOf(answer));
    const file = await answer.blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    window.page.note(`Saved, ${window.memory.bytes(file.size)}: the words and the memory. Open it here `
      + "or on another server with this model, and go on at once.");
  }

  async function put(ticket, file) {
    const answer = await fetch(`memory/${ticket}`, { method: "PUT", body: file });
    if (!answer.ok) throw new Error(await problemOf(answer));
    const opened = await lastLine(answer);
    if (opened.detail) throw new Error(opened.detail);
    window.page.tell("files", "act", {});
    window.page.note(`${whatOpened(opened)} The conversation before it is kept.`);
    window.page.visible("#composer textarea")?.focus();
  }

  const count = (number) => number.toLocaleString("en");

  function whatOpened({ num_tokens: tokens, num_conversations: conversations, num_states: states, problem }) {
    if (tokens !== undefined) return `Opened: ${count(tokens)} tokens are remembered, none was read again.`;
    const what = conversations === 1 ? "Opened" : `${count(conversations)} conversations are here, the first is open`;
    const memory = states ? "its memory came along" : "it is read with the next message";
    return `${what}; ${memory}.${problem ? ` ${sentence(problem)}` : ""}`;
  }

  // The answer's lines tell how far an import of many is; the last one is the result.
  async function lastLine(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return JSON.parse(text.trim().split("\n").at(-1));
      text += value;
      const { num_done: here, num_all: all } = JSON.parse(text.match(/.*\n(?=[^\n]*$)/)?.[0] ?? "{}");
      if (all > 1) window.page.note(`${count(here)} of ${count(all)} conversations are here …`);
    }
  }

  window.page.drawsWith("files", async (value) => {
    if (!value?.op) return;
    try {
      if (value.problem) throw new Error(value.problem);
      if (value.op === "save") await save(value.ticket);
      else if (opening) await put(value.ticket, opening);
    } catch (error) {
      window.page.note(sentence(error.message));
    }
    if (value.op === "open") opening = null;
  });

  function open(file) {
    opening = file;
    window.page.ask("files", "look", { op: "open" });
  }

  async function take(file) {
    if (/\.(safetensors|zip|jsonl)$/i.test(file.name)) return open(file);
    const isText = TEXT.test(file.name) || file.type.startsWith("text/");
    if (!isText || file.size > MAX_TEXT_BYTES) return window.books.open(file); // a short text is a message
    const text = await file.text().catch(() => null);
    if (text === null) return window.page.note(`${file.name} cannot be read: it has gone, or is a folder.`);
    const before = document.querySelector("#composer textarea")?.value ?? "";
    return window.page.type("#composer", `${before ? `${before}\n\n` : ""}${text}`)?.focus();
  }

  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    window.page.mark("dropping", true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) window.page.mark("dropping", false);
  });
  document.addEventListener("drop", (event) => {
    window.page.mark("dropping", false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });

  Object.assign(window.memory, {
    /** The newest memory, or that after the message of this id. */
    save: (id = null) => window.page.ask("files", "look", { op: "save", id }),
    open,
  });
})();
