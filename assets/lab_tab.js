/* The page's two parts as tabs: the chat, and the laboratory, whose script and style are fetched when
   it is opened first. The chat stays as it is meanwhile: a reply goes on, and is heard. */
(() => {
  const { make } = window.markdown;
  const HASH = "#laboratory";
  let loading = null;
  let isOpen = false;

  const tab = (name) => document.querySelector(`#tab-${name}`);
  const place = () => document.querySelector("#lab .lab");

  function load() {
    const { script, style } = place().dataset;
    document.head.append(make("link", { rel: "stylesheet", href: style }));
    return import(new URL(script, document.baseURI).href);
  }

  /** The tabs as they are: the header is drawn anew when the model is ready. */
  function draw() {
    for (const [name, isChosen] of [["chat", !isOpen], ["lab", isOpen]]) {
      const button = tab(name);
      if (!button || button.ariaSelected === String(isChosen)) continue;
      button.ariaSelected = String(isChosen);
      button.tabIndex = isChosen ? 0 : -1;
    }
  }

  async function show(name) {
    if (!place()) return;
    isOpen = name === "lab";
    window.page.mark("lab", isOpen);
    draw();
    const address = new URL(location.href);
    address.hash = isOpen ? HASH : "";
    if (isOpen || location.hash === HASH) history.replaceState(history.state, "", address.href.replace(/#$/, ""));
    if (!isOpen) return;
    try {
      await (loading ??= load());
      await window.lab.open(place());
    } catch (error) {
      loading = null; // another click tries again
      console.error(error);
      place().replaceChildren(make("p", { role: "alert" }, ["The laboratory could not be fetched. Open its tab again."]));
    }
  }

  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("#tab-chat, #tab-lab");
    if (chosen) show(chosen.id.slice("tab-".length));
  });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("#tab-chat, #tab-lab")) return;
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    const other = event.target.id === "tab-chat" ? "lab" : "chat";
    show(other);
    tab(other).focus();
  });
  new MutationObserver(draw).observe(document.documentElement, { childList: true, subtree: true });
  window.page.whenReady(() => {
    document.querySelector("#main")?.setAttribute("role", "tabpanel");
    document.querySelector("#main")?.setAttribute("aria-labelledby", "tab-chat");
    if (location.hash === HASH) show("lab");
  });
})();
