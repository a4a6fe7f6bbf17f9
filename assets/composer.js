/* The composer beyond a text field: a message that waits for the end of a reply, the count of tokens
   before sending, and the keys of the page. */
(() => {
  const { visible, isBusy } = window.page;
  const COUNTED_CHARS = 400; // shorter texts are not worth a count
  const COUNT_AFTER_MS = 500;
  const field = () => document.querySelector("#composer textarea");

  let isQueued = false;

  function queue(isOn) {
    isQueued = isOn;
    document.querySelector("#composer-row")?.classList.toggle("queued", isOn);
  }

  // Before the page has its conversation, the server knows nothing of it.
  const isStarting = () => document.querySelector("#status .status-line[data-phase=starting]") !== null;

  // Enter during a reply: the message is sent when the reply is over.
  document.addEventListener("keydown", (event) => {
    const isEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (!isEnter || event.target !== field()) return;
    if (window.connection.isLost) {
      event.preventDefault();
      event.stopImmediatePropagation();
      window.page.note("Not sent: the server does not answer. What you wrote is kept.");
    } else if (isBusy() && field().value.trim()) {
      event.preventDefault();
      event.stopImmediatePropagation();
      queue(!isQueued);
      window.page.note(isQueued
        ? "It is sent as soon as this reply is over. Enter again keeps it back; Escape stops the reply."
        : "Kept back: it stays in the box.");
    } else if (isStarting() && field().value.trim()) {
      event.preventDefault();
      event.stopImmediatePropagation();
      queue(true);
    } else if (visible("#send")?.disabled) {
      window.page.note("The model is not ready yet.");
    }
  }, true);

  document.addEventListener("click", (event) => {
    if (window.connection.isLost && event.target.closest("#send, #extend, #retry, #undo, #clear")) {
      event.preventDefault();
      event.stopImmediatePropagation();
      window.page.note("The server does not answer. What you wrote is kept.");
    } else if (isStarting() && event.target.closest("#send")) {
      event.preventDefault();
      event.stopImmediatePropagation();
      queue(true);
    }
  }, true);

  let wasBusy = false;
  setInterval(() => {
    const busy = isBusy();
    if (!busy && isQueued && !isStarting()) { // a reply may have come and gone between two looks
      queue(false);
      if (field()?.value.trim()) setTimeout(() => visible("#send")?.click(), 0);
    }
    if (busy === wasBusy) return;
    wasBusy = busy;
    window.page.mark("busy", busy);
    for (const tool of document.querySelectorAll(".changes")) tool.ariaDisabled = String(busy);
    for (const id of ["retry", "undo", "document-retry", "document-undo"]) {
      const tool = document.querySelector(`button#${id}`);
      if (tool) Object.assign(tool, { disabled: busy, title: busy ? "Not while a reply is being written" : "" });
    }
  }, 120);

  // A message that came back while something else was begun: it can take the place of that.
  function offer(text) {
    const { make } = window.markdown;
    const button = (label, run) => {
      const made = make("button", { type: "button", class: "tool" }, [label]);
      made.addEventListener("click", run);
      return made;
    };
    const swap = () => {
      const draft = field().value;
      bar.remove();
      window.page.type("#composer", text)?.focus();
      if (draft.trim()) offer(draft);
    };
    const bar = make("div", { class: "offered", role: "note", "aria-label": "A message beside the draft" }, [
      make("span", { dir: "auto" }, [text]),
      button("Put it in the box", swap),
      button("Dismiss", () => { bar.remove(); field()?.focus(); }),
    ]);
    document.querySelector(".offered")?.remove();
    document.querySelector("#composer-row").before(bar);
  }

  // The count of a long text, from the server's own tokenizer.
  let counting = null;
  let counted = "";

  function count() {
    const text = field()?.value ?? "";
    if (text === counted) return;
    counted = text;
    if (text.length >= COUNTED_CHARS) window.page.ask("counter", "look", { text });
    else window.page.mark("counted", false);
  }
  document.addEventListener("input", (event) => {
    if (event.target !== field()) return;
    clearTimeout(counting);
    counting = setTimeout(count, COUNT_AFTER_MS);
  });
  window.page.drawsWith("counter", (value, { element }) => {
    const isLong = counted.length >= COUNTED_CHARS;
    element.textContent = (isLong && value?.text) || "";
    window.page.mark("counted", element.textContent !== "");
    element.classList.toggle("warns", Boolean(isLong && value?.warns));
  });

  // What takes the place of the text gives it back.
  document.addEventListener("click", (event) => {
    const text = document.querySelector("#document textarea")?.value;
    if (!event.target.closest("#document-clear, #document-page .gallery-item") || !text?.trim()) return;
    window.page.note("The text has made room.", {
      label: "Undo", run: () => window.page.type("#document", text),
    });
  }, true);

  // The notebook follows its own writing, a reply of a moment too; not what somebody types.
  setInterval(() => {
    const text = document.querySelector("#document textarea");
    if (!text || text.offsetParent === null) return;
    const grown = text.value.length - Number(text.dataset.seen ?? text.value.length);
    text.dataset.seen = text.value.length;
    if (grown > 0 && text !== document.activeElement) text.scrollTop = text.scrollHeight;
  }, 150);

  // Settings count when they are pasted, dictated or dropped: Gradio's text fields tell of keys alone.
  let telling = null;
  document.addEventListener("input", (event) => {
    const field = event.target.closest?.("#behaviour") && event.target;
    if (!field?.matches("textarea, input[type=text]")) return;
    clearTimeout(telling);
    telling = setTimeout(() => field.dispatchEvent(new KeyboardEvent("keypress", { bubbles: true })), 100);
  });

  // ---- keys ---------------------------------------------------------------------------------------

  const KEYS = [
    ["Enter", "Send; during a reply: send after it"],
    ["Shift Enter", "A new line"],
    ["Escape", "Stop the reply"],
    ["Ctrl B", "The list of conversations"],
    ["Ctrl K", "Search the conversations"],
    ["Ctrl Shift O", "A new conversation"],
    ["Ctrl Shift E", "Edit your last message"],
    ["Ctrl Shift ;", "Copy the last reply"],
    ["Alt ← →", "The neighbouring branch"],
    ["↑ ↓", "From message to message, in the conversation"],
    ["/", "To the composer"],
    ["?", "These keys"],
  ];

  function showKeys() {
    let sheet = document.querySelector("#keys");
    if (!sheet) {
      const { make } = window.markdown;
      const close = make("button", { type: "button", class: "tool" }, ["Close"]);
      close.addEventListener("click", () => sheet.close());
      sheet = make("dialog", { id: "keys", "aria-labelledby": "keys-title" }, [
        make("h2", { id: "keys-title" }, ["Keys"]),
        make("dl", {}, KEYS.map(([key, does]) => make("div", {}, [
          make("dt", {}, key.split(" ").map((each) => make("kbd", {}, [each]))),
          make("dd", {}, [does]),
        ]))),
        close,
      ]);
      document.body.append(sheet);
    }
    if (!sheet.open) sheet.showModal();
  }

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, textarea, select, [contenteditable]");
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const run = () => {
      if (command && !event.shiftKey && key === "b") return window.sidebar?.toggle();
      if (command && !event.shiftKey && key === "k") return window.sidebar?.search();
      if (command && event.shiftKey && key === "o") return visible("#clear")?.click();
      if (command && event.shiftKey && key === "e") return window.conversation.editLast();
      if (command && event.shiftKey && [";", ":"].includes(key)) return window.conversation.copyLast();
      if (isTyping || command) return undefined;
      if (event.key === "?") return showKeys();
      if (event.key === "/") return field()?.focus();
      if (event.altKey && key === "arrowleft") return window.conversation.switchBranch(-1);
      if (event.altKey && key === "arrowright") return window.conversation.switchBranch(1);
      return undefined;
    };
    const isOurs = (command && (["b", "k"].includes(key) ? !event.shiftKey
      : event.shiftKey && ["o", "e", ";", ":"].includes(key)))
      || (!isTyping && !command && (["?", "/"].includes(event.key)
        || (event.altKey && ["arrowleft", "arrowright"].includes(key))));
    if (!isOurs || event.defaultPrevented) return;
    event.preventDefault();
    run();
  });

  window.composer = { offer };

  document.addEventListener("click", (event) => {
    if (event.target.closest("#show-keys")) showKeys();
    if (event.target.closest("#clear")) {
      setTimeout(() => matchMedia("(pointer: fine)").matches && field()?.focus(), 0);
    }
  });
})();
