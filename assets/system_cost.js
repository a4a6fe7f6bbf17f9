/* Says beside the system prompt, before a message is sent, that another one has the conversation read
   again, and what that takes (ui/events/counting.py). */
(() => {
  const AFTER_MS = 300;
  let waiting = null;
  let asked = "";

  function look() {
    const messages = window.conversation.messages();
    const text = document.querySelector("#system-prompt textarea")?.value ?? "";
    const question = `${messages[messages.length - 1]?.id} ${text}`;
    if (window.page.isBusy()) return check();
    if (!window.page.element("system-cost") || question === asked) return;
    asked = question;
    window.page.ask("system-cost", "look", { text });
  }

  function check() {
    clearTimeout(waiting);
    waiting = setTimeout(look, AFTER_MS);
  }

  window.page.drawsWith("system-cost", (value, { element }) => {
    element.querySelector(".system-cost").textContent = value?.text ?? "";
    if (value) return;
    asked = ""; // the settings have just been opened
    check();
  });
  document.addEventListener("input", (event) => event.target.closest?.("#system-prompt") && check());
  window.systemCost = { check };
})();
