/* What a page of components cannot do by itself: the theme switch, Escape, and focus. */
(() => {
  const STORAGE_KEY = "falcon-mamba-theme"; // "dark" or "light"; absent follows the system
  const visible = (selector) =>
    [...document.querySelectorAll(selector)].find((element) => element.offsetParent !== null);

  function applyTheme() {
    const chosen = localStorage.getItem(STORAGE_KEY);
    if (chosen && document.body.classList.contains("dark") !== (chosen === "dark")) {
      document.body.classList.toggle("dark", chosen === "dark");
    }
    document.documentElement.style.colorScheme =
      document.body.classList.contains("dark") ? "dark" : "light";
  }

  function switchTheme() {
    const isDark = document.body.classList.contains("dark");
    localStorage.setItem(STORAGE_KEY, isDark ? "light" : "dark");
    applyTheme();
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

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") visible("button#stop, button#document-stop")?.click();
  });
})();
