/* How sure the model was: a reply's words, underlined where others were likely too. Each word tells its
   probability and the alternatives, and the reply can go on from any of them as a branch. The figures
   come from ui/events/probabilities.py when somebody asks for them. */
(() => {
  const { make } = window.markdown;
  const { button } = window.dialogs;
  const STEPS = [0.95, 0.7, 0.4, 0.15]; // below each the underline is stronger
  const SPECIAL = /^<\|?[^<>]*\|?>$/; // the end of a turn and the like

  let asked = null; // the id of the reply that is asked about, or of TEXT
  let ofText = null; // where the text's words go, and what to do instead of one
  const TEXT = "text";
  const SURPRISE_KEY = "falcon-mamba-surprise";
  const MAX_BITS = 12; // of surprise that still colour a word more
  const percent = (p) => (p === null ? "–" : p >= 0.995 ? "100 %" : p < 0.01 ? "< 1 %" : `${Math.round(100 * p)} %`);
  /** A token as it is read: "…" before what goes on with a word. */
  const visibly = (text, at) => (text.startsWith(" ") || text.startsWith("\n") || !at ? "" : "…")
    + (text.trim() || text.replaceAll("\n", "↵").replaceAll(" ", "␣"));

  function ask(id) {
    asked = id;
    window.page.note("Reading the conversation once more, for the probabilities…");
    window.page.ask("probabilities", "look", { id });
  }

  function askOfText(text, place) {
    [asked, ofText] = [TEXT, place];
    window.page.note("Reading the text once more, for the probabilities…");
    window.page.tell("probabilities", "look", { id: TEXT, text });
  }

  /** A reply's words stand in the place of its bubble; a text's below it. */
  function placeOf(id) {
    if (id === TEXT) {
      const { place, instead } = ofText;
      return { put: (shown) => place.replaceChildren(shown), leave: () => document.querySelector("#document textarea")?.focus(), instead };
    }
    const row = window.conversation.row(id);
    if (!row) return null;
    row.element.querySelector(".sureness")?.remove();
    return {
      put(shown) { row.bubble.hidden = true; row.bubble.after(shown); },
      leave() { row.bubble.hidden = false; row.element.focus(); },
      instead: (begun) => window.conversation.act("instead", id, begun),
    };
  }

  const bitsOf = (p) => (p === null ? 0 : Math.min(MAX_BITS, -Math.log2(Math.max(p, 1e-9))));

  function show(id, tokens) {
    const where = placeOf(id);
    if (!where) return;
    const details = make("div", { class: "alternatives", "aria-live": "polite" }, ["Choose a word for its alternatives."]);
    const words = tokens.map(([text, p], at) => {
      const step = p === null ? 0 : STEPS.filter((bound) => p < bound).length;
      const made = make("span", {
        role: "button", tabindex: at ? "-1" : "0", class: `word sure-${step}`,
        "aria-label": `${visibly(text, at)}, ${percent(p)}`, title: p === null ? "–" : `${percent(p)}, ${bitsOf(p).toFixed(1)} bits`,
        style: `--surprise: ${(bitsOf(p) / MAX_BITS).toFixed(3)}`,
      }, [text]);
      made.addEventListener("click", () => choose(at));
      return made;
    });
    function choose(at) {
      const [text, p, top] = tokens[at];
      words.forEach((word, i) => {
        word.tabIndex = i === at ? 0 : -1;
        word.toggleAttribute("data-chosen", i === at);
      });
      const others = top.filter(([other]) => other !== text).map(([other, share]) => option(other, share, at));
      details.replaceChildren(
        make("p", {}, [make("b", { dir: "auto" }, [visibly(text, at)]), ` was chosen; its probability is ${percent(p)}.`,
          others.length ? " Go on with another one, in a branch:" : ""]),
        make("div", { class: "chips" }, others),
      );
    }
    function option(other, share, at) {
      if (SPECIAL.test(other)) return make("span", { class: "preset" }, [`the end · ${percent(share)}`]);
      const made = button(`${visibly(other, at)} · ${percent(share)}`, () => {
        close();
        const before = tokens.slice(0, at).map(([text]) => text).join("");
        where.instead(before + other);
      }, "preset");
      made.dir = "auto";
      return made;
    }
    const place = make("div", { class: "said sure-words", dir: "auto", role: "group", "aria-label": "The reply's words; arrows walk, Enter chooses" }, words);
    place.addEventListener("keydown", (event) => {
      const at = words.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 }[event.key];
      if (at >= 0 && words[to]) { choose(to); words[to].focus(); }
      if (at >= 0 && ["Enter", " "].includes(event.key)) {
        choose(at);
        details.querySelector("button")?.focus();
      }
      if (event.key === "Escape") close();
      if (words[to] || ["Enter", " ", "Escape"].includes(event.key)) { event.preventDefault(); event.stopPropagation(); }
    });
    function close() {
      shown.remove();
      where.leave();
    }
    const colours = make("input", { type: "checkbox" });
    colours.checked = window.page.recall(SURPRISE_KEY) === "on";
    const colour = () => {
      window.page.remember(SURPRISE_KEY, colours.checked ? "on" : "off");
      place.toggleAttribute("data-surprise", colours.checked);
    };
    colours.addEventListener("change", colour);
    colour();
    const shown = make("div", { class: "sureness" }, [place, details, make("div", { class: "sure-tools" }, [
      make("span", {}, ["Underlined: where the model was less sure, before any setting"]),
      make("label", { title: "The stronger, the less likely the word: −log₂ of its probability" }, [colours, " Colour by surprise"]),
      button("Close", close, "quiet"),
    ])]);
    where.put(shown);
    words[0]?.focus();
  }

  window.page.drawsWith("probabilities", (value) => {
    if (!value?.id || value.id !== asked) return;
    asked = null;
    if (value.problem) window.page.note(value.problem);
    else if (value.tokens?.length) { window.page.note(""); show(value.id, value.tokens); }
    else window.page.note("The server tells no probabilities.");
  });

  window.probabilities = { ask, askOfText };
})();
