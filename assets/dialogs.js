/* Small dialogs: one question, or a few things to choose from. The browser's own element keeps the
   focus inside, closes with Escape, and gives the focus back. */
(() => {
  const { make } = window.markdown;

  /** A button; `run` is called when it is chosen. */
  function button(label, run, kind = "") {
    const made = make("button", { type: "button", class: `choice ${kind}` }, [label]);
    made.addEventListener("click", run);
    return made;
  }

  /** Opens a dialog; `build` returns its nodes and is given the function that closes it. */
  function open(title, build, { onClose = null, isWide = false } = {}) {
    document.querySelector("dialog.ours")?.close();
    const heading = make("h2", { id: "dialog-title" }, [title]);
    const dialog = make("dialog", {
      class: isWide ? "ours wide" : "ours", "aria-labelledby": "dialog-title",
    });
    dialog.append(heading, ...build(() => dialog.close()));
    dialog.addEventListener("close", () => { dialog.remove(); onClose?.(); });
    dialog.addEventListener("keydown", (event) => event.stopPropagation()); // Escape stops no reply
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    (document.querySelector(".gradio-container") ?? document.body).append(dialog);
    dialog.showModal();
    return dialog;
  }

  /** One line of text, or null. */
  function ask(question, value = "") {
    return new Promise((done) => {
      let answer = null;
      open(question, (close) => {
        const field = make("input", { type: "text", "aria-label": question, dir: "auto", maxlength: "120" });
        field.value = value;
        const form = make("form", { method: "dialog" }, [field, make("div", { class: "choices" }, [
          button("Cancel", close), make("button", { type: "submit", class: "choice go" }, ["OK"]),
        ])]);
        form.addEventListener("submit", () => { answer = field.value; });
        setTimeout(() => field.select(), 0);
        return [form];
      }, { onClose: () => done(answer) });
    });
  }

  window.dialogs = { open, ask, button };
})();
