/* The notebook: one free text that the model continues, for a model that chats too; and what the model
   really reads, markup included, for either (ui/events/shown_prompt.py). */
(() => {
  const { make } = window.markdown;
  let asked = 0; // the newest question about the prompt

  const field = (id) => document.querySelector(`${id} textarea`);
  const isNotebook = () => window.page.isMarked("notebook") || !document.querySelector("#chat");
  const open = (isOpen) => {
    window.page.mark("notebook", isOpen);
    field(isOpen ? "#document" : "#composer")?.focus();
  };

  function askForPrompt() {
    asked += 1;
    const [of, box] = isNotebook() ? ["text", "#document"] : ["chat", "#composer"];
    window.page.tell("prompt", "look", { turn: asked, of, text: field(box)?.value ?? "" });
  }

  function show({ tokens, left_out: leftOut, pieces }) {
    const read = pieces.map(([text, kind]) => (kind ? make("span", { class: kind === 1 ? "markup" : "left-out" }, [text]) : text));
    const shown = leftOut ? `, of which the first and the last ${((tokens - leftOut) / 2).toLocaleString("en")} are shown` : "";
    window.dialogs.open("What the model reads", (close) => [
      make("p", {}, [`${tokens.toLocaleString("en")} tokens${shown}. Markup is coloured; the model's reply follows the end.`]),
      make("pre", { class: "read-prompt", dir: "auto", tabindex: "0" }, read),
      make("div", { class: "choices" }, [window.dialogs.button("Close", close)]),
    ], { isWide: true });
  }

  window.page.drawsWith("prompt", (value) => {
    if (!value?.turn || value.turn !== asked) return;
    asked += 1; // an answer is shown once
    if (value.problem) window.page.note(value.problem);
    else show(value);
  });

  /** The text's own probabilities, and another word instead of one of them. */
  function askForProbabilities() {
    const text = field("#document")?.value ?? "";
    if (!text.trim()) return window.page.note("Write something first: there is no text yet.");
    return window.probabilities.askOfText(text, {
      place: document.querySelector("#text-sureness"),
      instead(begun) {
        window.page.type("#document", begun);
        setTimeout(() => window.page.visible("#extend")?.click(), 60); // when Gradio has the value
      },
    });
  }

  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("button")?.id;
    if (chosen === "to-notebook") open(true);
    if (chosen === "to-chat") open(false);
    if (["show-prompt", "document-prompt"].includes(chosen)) askForPrompt();
    if (chosen === "document-sure") askForProbabilities();
  });
})();
