/* One truth about the connection. Gradio holds a heartbeat open for as long as the page lives; when it
   breaks, the page says so at once, asks until the server answers again, and then opens anew: the text
   fields survive, and so does a reply that went on meanwhile. */
(() => {
  const ASK_EVERY_MS = 1_200;
  const HEARTBEAT = "/heartbeat/";
  let isLost = false;
  let isLeaving = false;

  const isThere = () => fetch("health", {
    cache: "no-store", signal: AbortSignal.timeout(1_500),
  }).then((answer) => answer.status < 502, () => false);

  function say(words) {
    document.body.classList.toggle("lost", isLost);
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

  /** The connection broke, or may have: say so unless the server answers. */
  async function check(heartbeat = null) {
    if (isLost || isLeaving) return;
    const isHere = navigator.onLine !== false && await isThere();
    if (isLost || isLeaving) return;
    if (isHere) {
      if (heartbeat) setTimeout(() => isLeaving || hold(heartbeat), ASK_EVERY_MS);
      return;
    }
    isLost = true;
    say(wording());
    const asking = setInterval(async () => {
      say(wording());
      if (navigator.onLine === false || !await isThere()) return;
      clearInterval(asking);
      location.reload();
    }, ASK_EVERY_MS);
  }

  async function listen(body, heartbeat) {
    const reader = body.getReader();
    try {
      for (;;) if ((await reader.read()).done) break;
    } catch { /* broken */ }
    check(heartbeat);
  }

  /** Hold the heartbeat again: a proxy has ended it, and the server would think the page gone. */
  const hold = (heartbeat) => ask(heartbeat).then(
    (answer) => answer.ok && answer.body && listen(answer.body, heartbeat),
    () => check(heartbeat),
  );

  const ask = window.fetch.bind(window);
  window.fetch = async (...request) => {
    const answer = await ask(...request);
    const address = String(request[0]?.url ?? request[0]);
    if (!address.includes(HEARTBEAT) || !answer.ok || !answer.body) return answer;
    const [ours, theirs] = answer.body.tee();
    listen(ours, address);
    return new Response(theirs, answer);
  };

  window.addEventListener("pagehide", () => { isLeaving = true; });
  window.addEventListener("offline", () => check());
  window.addEventListener("pageshow", () => { isLeaving = false; });

  window.connection = {
    get isLost() { return isLost; },
    check,
  };
})();
