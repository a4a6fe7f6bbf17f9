/* Where the browser forbids storage (cookies refused, or a frame on another site), only to look at it is
   an error, which would stop Gradio as it opens the page. A store of this page alone takes its place. */
(() => {
  function storeOfThisPage() {
    const kept = new Map();
    return {
      isOfThisPage: true, // a reload forgets it
      get length() { return kept.size; },
      key: (at) => [...kept.keys()][at] ?? null,
      getItem: (key) => kept.get(String(key)) ?? null,
      setItem: (key, text) => { kept.set(String(key), String(text)); },
      removeItem: (key) => { kept.delete(String(key)); },
      clear: () => kept.clear(),
    };
  }

  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      window[name].getItem("");
    } catch {
      Object.defineProperty(window, name, { value: storeOfThisPage(), configurable: true });
    }
  }
})();
