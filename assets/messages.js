/* Draws what was said: the user's words as they are, the model's as Markdown.

   The chatbot is given text alone (ui/view/message_text.py) and shows it unformatted; beside each such
   text its message is drawn from nodes (markdown_blocks.js). A reply that grows is drawn from its last
   blocks on. */
(() => {
  const MAX_FORMULAS = 300; // of one message; the others stay as they were written
  const { make, blocksOf } = window.markdown;

  // Formulas are their source, until KaTeX, which comes with Gradio, has drawn them.
  const DELIMITERS = [
    { left: "$$", right: "$$", display: true },
    { left: "\\[", right: "\\]", display: true },
    { left: "\\(", right: "\\)", display: false },
  ];
  let katex = null; // a promise of the function that draws, once a formula was seen

  function loadKatex() {
    const [script, style] = document.querySelector("meta[name=katex]")?.content.split(" ") ?? [];
    if (!script) return Promise.resolve(null);
    document.head.append(make("link", { rel: "stylesheet", href: style }));
    const address = new URL(script, document.baseURI).href;
    return import(address).then((module) => module.default, () => null);
  }

  function drawFormulas(place) {
    const found = [...place.querySelectorAll(".formula")].slice(0, MAX_FORMULAS);
    if (!found.some((element) => !element.classList.contains("drawn"))) return;
    katex ??= loadKatex();
    katex.then((draw) => {
      for (const element of draw ? found : []) {
        if (!element.isConnected || element.classList.contains("drawn")) continue;
        element.classList.add("drawn");
        const source = element.textContent;
        try {
          draw(element, {
            delimiters: DELIMITERS, throwOnError: true, strict: "ignore", trust: false,
            maxSize: 5, maxExpand: 100, errorCallback: () => {}, // it leaves the source then
          });
        } catch {
          element.textContent = source;
        }
      }
    });
  }

  const linesOf = (text) => text.split(/\r\n|\r|\n/);

  /** Draws a growing text: what stands before its last two blocks cannot change any more. */
  class Growing {
    constructor(place) {
      this.place = place;
      this.settled = ""; // the text of the blocks that stay
      this.numSettled = 0; // their nodes
    }

    draw(text) {
      if (!text.startsWith(this.settled)) {
        this.settled = "";
        this.numSettled = 0;
      }
      const lines = linesOf(text.slice(this.settled.length));
      const blocks = blocksOf(lines, 0);
      while (this.place.childNodes.length > this.numSettled) this.place.lastChild.remove();
      for (const [, node] of blocks) this.place.append(node);
      if (blocks.length > 2) this.settle(text, blocks[blocks.length - 2][0], blocks.length - 2);
      drawFormulas(this.place);
    }

    settle(text, numLines, numBlocks) {
      const ends = /\r\n|\r|\n/g;
      ends.lastIndex = this.settled.length;
      for (let i = 0; i < numLines; i += 1) ends.exec(text);
      this.settled = text.slice(0, ends.lastIndex);
      this.numSettled += numBlocks;
    }
  }

  const asTyped = (text) => text.replace(/([<&])\u2060/g, "$1");
  const drawings = new WeakMap(); // of the chatbot's element with the text: ours beside it

  function drawingOf(source) {
    const known = drawings.get(source);
    if (known?.place.parentNode === source.parentNode) return known;
    const isUser = source.closest("[data-testid]").dataset.testid === "user";
    const place = make("div", { class: isUser ? "said" : "said prose", dir: "auto" });
    source.after(place);
    source.hidden = true;
    const growing = new Growing(place);
    const isPlain = isUser || source.closest(".thought-group"); // the page's own remarks
    const drawing = {
      place, text: null,
      draw: (text) => (isPlain ? place.replaceChildren(text) : growing.draw(text)),
    };
    drawings.set(source, drawing);
    return drawing;
  }

  function drawMessage(source) {
    if (!source.firstChild) return; // drawn already
    const drawing = drawingOf(source);
    const text = asTyped(source.textContent);
    source.replaceChildren(); // or the page would hold each text twice
    if (text === drawing.text) return;
    drawing.text = text;
    try {
      drawing.draw(text);
    } catch (error) { // never seen; the words are worth more than their form
      console.error(error);
      drawing.place.replaceChildren(text);
    }
  }

  const MESSAGE = "#transcript [data-testid=user] .md, #transcript [data-testid=bot] .md";

  function drawChanges(changes) {
    const changed = new Set();
    for (const { target } of changes) {
      const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
      if (!element || element.closest(".said")) continue;
      const inside = element.closest(".md");
      if (inside?.matches(MESSAGE)) changed.add(inside);
      else if (element.closest("#transcript") || element.querySelector("#transcript")) {
        for (const message of element.querySelectorAll(MESSAGE)) changed.add(message);
      }
    }
    changed.forEach(drawMessage);
  }

  new MutationObserver(drawChanges).observe(document.documentElement, {
    childList: true, subtree: true, characterData: true,
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".copy-code");
    if (!button) return;
    navigator.clipboard?.writeText(button.closest("figure").querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  window.messages = { asTyped, Growing };
})();
