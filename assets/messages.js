/* Draws the model's words as Markdown, while they grow: what stands before the last two blocks is
   settled and is not drawn again. markdown_blocks.js makes the nodes; formulas come from KaTeX. */
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

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".copy-code");
    if (!button) return;
    window.page.copyFrom(button, button.closest("figure").querySelector("code").textContent);
  });

  window.messages = { Growing };
})();
