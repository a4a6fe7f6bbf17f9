/* What a page of components cannot do by itself: the theme switch, keys, focus, copying, number
   fields left empty, and coming back after a reload or a broken connection. */
(() => {
  const STORAGE_KEY = "falcon-mamba-theme"; // "dark" or "light"; absent follows the system
  let chosenHere = null; // where the browser keeps nothing
  const { visible, isBusy } = window.page;

  function applyTheme() {
    const chosen = window.page.recall(STORAGE_KEY) ?? chosenHere;
    if (chosen && document.body.classList.contains("dark") !== (chosen === "dark")) {
      document.body.classList.toggle("dark", chosen === "dark");
    }
    document.documentElement.style.colorScheme =
      document.body.classList.contains("dark") ? "dark" : "light";
  }

  function switchTheme() {
    const isDark = document.body.classList.contains("dark");
    chosenHere = isDark ? "light" : "dark";
    window.page.remember(STORAGE_KEY, chosenHere);
    applyTheme();
    window.strip.drawAgain();
  }

  function keepTheme() {
    applyTheme();
    // Gradio sets its own class when it mounts and when the system's theme changes.
    new MutationObserver(applyTheme).observe(document.body, { attributeFilter: ["class"] });
  }

  // Gradio may add this script to a page that is already there.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", keepTheme);
  else keepTheme();

  document.addEventListener("click", (event) => {
    if (event.target.closest("#theme-toggle")) switchTheme();
    const usesMouse = matchMedia("(pointer: fine)").matches; // a phone would open its keyboard
    if (usesMouse && event.target.closest("#send, #stop")) {
      setTimeout(() => visible("#composer textarea")?.focus(), 0);
    }
  });

  // Gradio makes the fields of a closed fold when it is first opened, and sets them to their values a
  // moment later, over what was typed by then. So the settings begin open, and are folded unseen.
  function foldUp() {
    const left = document.querySelectorAll("#behaviour .label-wrap:not([data-folded])");
    for (const fold of left) {
      if (fold.classList.contains("open")) fold.click(); // again, where Gradio was not listening yet
      else fold.dataset.folded = "";
    }
    const isReady = document.querySelector("#status .status-line:not([data-phase=starting])");
    if (!isReady || left.length) requestAnimationFrame(foldUp);
  }
  foldUp();

  function tellFolds() {
    for (const fold of document.querySelectorAll("#side .label-wrap")) {
      fold.ariaExpanded = String(fold.classList.contains("open"));
    }
  }
  setInterval(tellFolds, 250);

  // Opened below the figures, the settings would stay out of sight.
  document.addEventListener("click", (event) => {
    const opened = event.isTrusted && event.target.closest("#behaviour > button")?.parentElement;
    if (opened) setTimeout(() => opened.scrollIntoView({ block: "start" }), 0);
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("#copy-all");
    if (!button) return;
    const isCopied = await window.page.copy(window.conversation.asMarkdown());
    if (!isCopied) return window.page.note("This browser does not let the page copy.");
    button.classList.add("copied");
    return setTimeout(() => button.classList.remove("copied"), 1500);
  });

  // Gradio makes 0 of an emptied field when it is left; the model's default is meant.
  document.addEventListener("blur", (event) => {
    const field = event.target;
    if (!field.matches?.("#behaviour input[type=number]") || field.value !== "") return;
    const defaults = JSON.parse(document.querySelector(".masthead")?.dataset.defaults || "{}");
    const value = defaults[field.closest(".block").id];
    if (value === undefined) return;
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);

  document.addEventListener("keydown", (event) => {
    const stop = window.page.isMarked("lab") ? "#lab .lab-stop" : "button#stop, button#document-stop";
    if (event.key === "Escape") visible(stop)?.click();
  });

  // A screen reader is told a reply once, at its end: as a live region the conversation would be read
  // anew with every word that is added, and all of it after a reload.
  const OVER = ["finished", "stopped", "failed"];
  const announcer = document.createElement("div");
  Object.assign(announcer, { id: "announcer", className: "unseen", role: "status" });
  // So it is with the status line, whose figures change several times a second: each phase is said once.
  const FIGURED = ["prefilling", "decoding"];
  const teller = document.createElement("div");
  Object.assign(teller, { id: "teller", className: "unseen", role: "status" });
  let phaseBefore = null;

  function announce() {
    if (!OVER.includes(phaseBefore)) return; // the next reply has begun
    const messages = document.querySelectorAll("#transcript [data-testid=bot]");
    announcer.textContent = messages[messages.length - 1]?.innerText.trim() ?? "";
  }

  function listenForEnds() {
    const line = document.querySelector("#status .status-line");
    const phase = line?.dataset.phase;
    const isFigure = phase === phaseBefore && FIGURED.includes(phase);
    if (line && !isFigure && teller.textContent !== line.textContent) teller.textContent = line.textContent;
    if (phase === phaseBefore) return;
    if (OVER.includes(phase)) setTimeout(announce, 300); // the conversation is drawn a little later
    else announcer.textContent = "";
    phaseBefore = phase;
  }

  new MutationObserver(listenForEnds).observe(document.documentElement, {
    childList: true, subtree: true,
  });
  const addAnnouncer = () => document.body.append(teller, announcer);
  if (document.body) addAnnouncer();
  else document.addEventListener("DOMContentLoaded", addAnnouncer);

  // A reload keeps what stood in the text fields; the tab remembers it, nobody else.
  const DRAFTS_KEY = "falcon-mamba-drafts";
  const textOf = (selector) => document.querySelector(`${selector} textarea`)?.value ?? "";

  function keepDrafts() {
    const drafts = {
      composer: textOf("#composer"), document: textOf("#document"), busy: isBusy(),
    };
    window.page.remember(DRAFTS_KEY, JSON.stringify(drafts), { forTab: true });
  }

  window.takeDrafts = () => {
    const drafts = window.page.recall(DRAFTS_KEY, { forTab: true });
    window.page.remember(DRAFTS_KEY, null, { forTab: true });
    return drafts;
  };

  window.addEventListener("pagehide", keepDrafts);
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());

  // Another tab of this browser has changed the conversation that both show.
  window.addEventListener("storage", (event) => {
    if (event.key === "falcon-mamba-chat") document.querySelector("#refresh")?.click();
  });

  // The tour: after one of its steps has been answered, the next is one click away. What was said last
  // tells which, so a reload and an undo change nothing about it.
  function nextStep() {
    const steps = JSON.parse(document.querySelector("#tour")?.dataset.steps || "[]");
    const said = window.conversation.messages().findLast((message) => message.role === "user");
    const at = said ? steps.findIndex((step) => step.text === said.text.trim()) : -1;
    const isOffered = at >= 0 && at + 1 < steps.length && !isBusy();
    return isOffered ? { ...steps[at + 1], number: at + 2, count: steps.length } : null;
  }

  function offerStep() {
    const place = document.querySelector("#tour");
    const step = place && nextStep();
    const label = step ? `${step.number} of ${step.count} · ${step.title}` : "";
    if (!place || place.innerText.trim() === label) return;
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.innerText = label;
    place.replaceChildren(...(step ? [button] : []));
  }

  function takeStep() {
    const step = nextStep();
    if (step?.press) visible(step.press)?.click();
    if (step?.text) window.page.send(step.text);
  }

  setInterval(offerStep, 250);
  document.addEventListener("click", (event) => {
    if (event.target.closest("#tour button")) takeStep();
  });

  // A reply in progress shows a sign of life every 10 s. Without one the connection is dead, even
  // if the browser has not noticed, as after a change of network: open the page again.
  window.maxSilenceMs = 35_000;
  const heard = { beat: null, at: 0 };
  const isSilent = () => {
    const beat = textOf("#beat");
    if (!isBusy() || beat !== heard.beat) Object.assign(heard, { beat, at: Date.now() });
    return Date.now() - heard.at > window.maxSilenceMs;
  };

  async function comeBack() {
    const isForgotten = document.querySelector("#status .status-line[data-phase=lost]");
    const isReached = (isForgotten || isSilent()) && await fetch(
      "health/live", { cache: "no-store", signal: AbortSignal.timeout(3_000) },
    ).catch(() => null);
    if (isReached) location.reload();
    else setTimeout(comeBack, 500);
  }
  comeBack();
})();
