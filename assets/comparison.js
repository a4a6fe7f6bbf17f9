/* Side by side: the next message is answered twice from one memory, as set now and as set in a preset
   (ui/events/comparison.py). The bar above the composer says so until it is closed. */
(() => {
  const { make } = window.markdown;
  const { button } = window.dialogs;
  const { isBusy, visible } = window.page;
  const AGAIN = "the same settings, drawn again";
  const field = () => document.querySelector("#composer textarea");
  let bar = null;

  function open() {
    const presets = window.presets.listed();
    const select = make("select", { "aria-label": "The settings of the second reply" }, [
      make("option", { value: "" }, [AGAIN]),
      ...presets.map(({ name }, i) => make("option", { value: String(i) }, [name])),
    ]);
    bar = make("div", { class: "compared", role: "group", "aria-label": "Side by side" }, [
      make("span", {}, ["The next message, twice from one memory: ", make("b", {}, ["as set now"]), " and"]),
      select, button("Close", close, "quiet"),
    ]);
    bar.values = () => {
      const now = window.presets.now();
      const chosen = presets[Number(select.value || NaN)]?.values ?? now;
      return { ...now, ...chosen, seed: select.value ? chosen.seed ?? now.seed : "" };
    };
    document.querySelector("#composer-row").before(bar);
    document.querySelector("#side-by-side")?.setAttribute("aria-pressed", "true");
    field()?.focus();
  }

  function close() {
    bar?.remove();
    bar = null;
    document.querySelector("#side-by-side")?.setAttribute("aria-pressed", "false");
    field()?.focus();
  }

  /** Instead of the page's own sending, while the bar is there. */
  function send(event) {
    const text = field()?.value ?? "";
    if (!bar?.isConnected || isBusy() || !text.trim() || visible("#send")?.disabled) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    window.page.tell("comparison", "act", { op: "ask", text, values: bar.values() });
  }

  document.addEventListener("keydown", (event) => {
    const isEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (isEnter && event.target === field()) send(event);
  }, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest("#send")) send(event);
    if (event.target.closest("#side-by-side")) (bar ? close : open)();
  }, true);
})();
