/* What the first screen does not need is fetched when something of it is asked for first: the scripts
   that ui/view/scripts.py calls LATER. The click that opens it is made once more when they are there. */
(() => {
  const OPENERS = "#as-code, #side-by-side, #show-prompt, #to-notebook, #document-prompt, #document-sure,"
    + " .demo, .delete-all, .how-sure";
  let isHere = false;
  let loading = null;

  function fetched() {
    const { content } = document.querySelector("meta[name=later]");
    loading ??= import(new URL(content, document.baseURI).href).then(
      () => { isHere = true; },
      (error) => { loading = null; throw error; }, // another click tries again
    );
    return loading;
  }

  document.addEventListener("click", (event) => {
    const opener = !isHere && event.target.closest?.(OPENERS);
    if (!opener) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    fetched().then(() => opener.click(), (error) => {
      console.error(error);
      window.page.note("This could not be fetched from the server. Try again.");
    });
  }, true);
})();
