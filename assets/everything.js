/* Delete everything: what the server has of whoever asks, then what this browser has of the page. */
(() => {
  const { make } = window.markdown;
  const { button } = window.dialogs;
  const PREFIX = "falcon-mamba";

  /** Say what goes, and wait for a word. */
  function ask(isKept) {
    const here = "In this browser: presets, settings, drafts, and the copy of a conversation.";
    const goes = isKept ? [
      "All conversations with their branches, named moments and states, archived ones too.",
      "All books, also those that you share; files, batches and responses of the API.",
      here,
    ] : ["This page's conversation with its state, and its books.", here];
    window.dialogs.open("Delete everything of yours?", (close) => [
      make("ul", {}, goes.map((line) => make("li", {}, [line]))),
      make("p", {}, ["Nothing of it can be brought back. A reply that is being written ends."]),
      make("div", { class: "choices" }, [
        button("Cancel", close),
        button("Delete everything", () => {
          close();
          window.page.tell("sidebar", "amend", { op: "delete everything" });
        }, "go"),
      ]),
    ]);
  }

  /** The server has nothing any more: neither has the browser, and the page begins as a new one. */
  function finish() {
    for (const name of ["localStorage", "sessionStorage"]) {
      try {
        const store = window[name];
        Object.keys(store).filter((key) => key.startsWith(PREFIX)).forEach((key) => store.removeItem(key));
      } catch { /* a frame without storage */ }
    }
    // What stands in the fields would be kept over the reload.
    document.querySelectorAll("#composer textarea, #document textarea").forEach((field) => { field.value = ""; });
    location.replace(location.pathname);
  }

  window.everything = { ask, finish };
})();
