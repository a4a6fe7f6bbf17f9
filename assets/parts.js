/* The parts of the page that this server's scripts draw themselves: each is a component of Gradio that
   only carries a value here and events back (ui/view/parts.py). A part may be there before its script
   is, or be made anew later. */
window.page = (() => {
  const drawers = {}; // by the part's name
  const newest = {}; // the number of the newest question that each part has asked
  let numAsked = 0;

  /** An answer brings its question's number back. One to an earlier question is not drawn. */
  const drawPart = (name) => {
    const part = window.parts?.[name];
    if (!part || !drawers[name]) return;
    const { value } = part.props;
    const number = value?.asked ?? newest[name];
    if (number === newest[name]) drawers[name].draw(value, part);
    else drawers[name].late?.(number);
  };

  function begin(name) {
    const part = window.parts[name];
    if (part.isWatched) return;
    part.isWatched = true;
    part.watch("value", () => drawPart(name));
    drawPart(name);
  }

  document.addEventListener("part", (event) => drawers[event.detail] && begin(event.detail));

  return {
    /** From now on `draw(value, part)` draws the part, whenever its value changes; `late` hears of
        answers that another question has overtaken. */
    drawsWith(name, draw, late = null) {
      drawers[name] = { draw, late };
      if (window.parts?.[name]) begin(name);
    },
    element: (name) => window.parts?.[name]?.element ?? null,
    /** Tell the server of something that was done to a part. */
    tell: (name, event, data) => window.parts?.[name]?.trigger(event, data),
    /** Ask the server something for a part to show (ui/events/questions.py); the question's number. */
    ask(name, event, data) {
      numAsked += 1;
      newest[name] = numAsked;
      window.page.tell(name, event, { ...data, asked: numAsked });
      return numAsked;
    },
    /** Mark what the page is like; style.css looks for it at #main, since Gradio puts all rules
        below its own container. */
    mark: (name, isOn) =>
      document.querySelector("#main")?.toggleAttribute(`data-${name}`, isOn),
    isMarked: (name) => Boolean(document.querySelector(`#main[data-${name}]`)),
    // One id after the other: a list of them is looked for in the whole page.
    visible: (selectors) => selectors.split(", ")
      .flatMap((selector) => [...document.querySelectorAll(selector)])
      .find((element) => element.offsetParent !== null),
    /** When the page has its conversation and settings; at once if it has them already. */
    whenReady(run) {
      if (document.querySelector("#status .status-line:not([data-phase=starting])")) run();
      else setTimeout(() => window.page.whenReady(run), 100);
    },
    isBusy: () => Boolean(window.page.visible("button#stop, button#document-stop")),
    /** Type a text into a field of Gradio's. */
    type(selector, text) {
      const field = window.page.visible(`${selector} textarea`);
      if (!field) return null;
      const setter = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set;
      setter.call(field, text);
      field.dispatchEvent(new Event("input", { bubbles: true }));
      return field;
    },
    /** Send a message, as somebody would who types it. */
    send(text) {
      if (window.page.isBusy() || !window.page.type("#composer", text)) return;
      setTimeout(() => window.page.visible("#send")?.click(), 60); // when Gradio has the value
    },
    /** What this browser keeps under a name, for its other visits or (`forTab`) for this tab; null
        where it keeps nothing: storage may be full or, in a frame or with cookies refused, forbidden. */
    recall(key, { forTab = false } = {}) {
      try { return (forTab ? sessionStorage : localStorage).getItem(key); } catch { return null; }
    },
    /** Keep a text, or with null forget it; whether that was possible. */
    remember(key, text, { forTab = false } = {}) {
      try {
        const store = forTab ? sessionStorage : localStorage;
        if (text === null) store.removeItem(key);
        else store.setItem(key, text);
        return true;
      } catch {
        return false;
      }
    },
    /** Put a text on the clipboard; whether that was possible. Browsers give the newer way to pages
        behind https and with leave only. */
    async copy(text) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch { /* not here */ }
      const before = document.activeElement;
      const field = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
      (before?.closest("dialog") ?? document.body).append(field);
      field.select();
      let isCopied = false;
      try { isCopied = document.execCommand("copy"); } catch { /* neither */ }
      field.remove();
      before?.focus?.();
      return isCopied;
    },
    /** The same for a button, which tells it. */
    async copyFrom(button, text) {
      const label = button.dataset.label ??= button.textContent;
      if (!await window.page.copy(text)) return window.page.note("This browser does not let the page copy.");
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
      return undefined;
    },
    /** Say something to screen readers, and in a note at the page's foot; it may offer an action. */
    note(text, action = null) {
      const place = document.querySelector("#toast");
      if (!place) return;
      clearTimeout(place.dataset.timer);
      place.hidden = !text;
      if (!text) return;
      const words = document.createElement("span");
      words.textContent = text;
      place.replaceChildren(words);
      if (action) {
        const button = Object.assign(document.createElement("button"), { type: "button" });
        button.textContent = action.label;
        button.addEventListener("click", () => { place.hidden = true; action.run(); });
        place.append(button);
      }
      place.hidden = false;
      place.dataset.timer = setTimeout(() => { place.hidden = true; }, 10_000);
    },
  };
})();
