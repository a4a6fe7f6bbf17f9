/* One truth about the connection. While somebody uses the page the server is asked every two seconds
   whether it is there, else every fifteen; when it is not, the page says so, asks on until it answers,
   and then opens anew: the text fields survive, and so does a reply that went on meanwhile. It opens
   anew too when another process answers, which does not know this page: after a restart, or at
   another copy of the server. */
(() => {
  const ASK_EVERY_MS = 1_200;
  const CHECK_MS = 2_000;
  const IDLE_CHECK_MS = 15_000;
  const IDLE_AFTER_MS = 60_000;
  let isLost = false;
  let isLeaving = false;

  // Where a router brings each question to another process, the page would open anew for ever.
  const ANEW_EVERY_MS = 30_000;
  let life = null;

  function notice(name) {
    if (isLeaving || !name || name === life) return;
    const isFirst = life === null;
    life = name;
    const last = Number(window.page.recall("opened-anew", { forTab: true }) ?? 0);
    if (isFirst || Date.now() - last < ANEW_EVERY_MS) return;
    const isKept = window.page.remember("opened-anew", String(Date.now()), { forTab: true });
    if (isKept && !sessionStorage.isOfThisPage) location.reload();
  }

  const ask = (timeoutMs) => fetch("health/live", { // well, too, while the model is loading
    cache: "no-store", signal: AbortSignal.timeout(timeoutMs),
  }).then((answer) => {
    notice(answer.headers.get("x-server-life"));
    return answer.status < 502;
  });

  /** A refused connection is known at once; a server that is only slow gets a second question.
      Whoever asks meanwhile waits for the same answer. */
  let asking = null;
  const isThere = () => {
    asking ??= ask(1_500)
      .catch((error) => error.name === "TimeoutError" && ask(6_000).catch(() => false))
      .finally(() => { asking = null; });
    return asking;
  };

  function say(words) {
    window.page.mark("lost", isLost);
    const line = document.querySelector("#connection");
    if (line) line.textContent = words;
    for (const chip of document.querySelectorAll(".chip")) {
      chip.classList.toggle("lost", isLost);
      chip.title = isLost ? words : chip.querySelector(".name").textContent;
    }
  }

  const wording = () => (navigator.onLine === false
    ? "You are offline. Trying again; what you write is kept"
    : "The server does not answer. Trying again; what you write is kept");

  /** Ask, and say so if there is no answer. */
  async function check() {
    if (isLost || isLeaving) return;
    if (navigator.onLine !== false && await isThere()) return;
    if (isLost || isLeaving) return;
    isLost = true;
    do {
      say(wording());
      await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
    } while (navigator.onLine === false || !await isThere());
    location.reload();
  }

  let usedAt = Date.now();
  let checkedAt = Date.now();
  for (const kind of ["keydown", "pointerdown", "pointermove", "focus"]) {
    window.addEventListener(kind, () => { usedAt = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(() => {
    if (document.hidden) return;
    const isIdle = Date.now() - usedAt > IDLE_AFTER_MS && !window.page.isBusy();
    if (Date.now() - checkedAt < (isIdle ? IDLE_CHECK_MS : CHECK_MS)) return;
    checkedAt = Date.now();
    check();
  }, 500);

  window.addEventListener("pagehide", () => { isLeaving = true; });
  window.addEventListener("offline", () => check());
  window.addEventListener("pageshow", () => { isLeaving = false; });

  window.connection = {
    get isLost() { return isLost; },
  };
})();
