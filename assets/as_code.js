/* The conversation as a program would have it: curl, Python and JavaScript for /v1/chat/completions, with
   the messages, the settings and the name under which the server keeps the memory. */
(() => {
  const { make } = window.markdown;
  const { open, button } = window.dialogs;
  const KEY_NOTE = "With an API key, add";

  /** The request's fields: what the page shows, up to the last message of the visitor. */
  function fields() {
    const said = window.conversation.messages().filter((message) => message.id)
      .map(({ role, text }) => ({ role, content: text }));
    while (said.length && said[said.length - 1].role !== "user") said.pop();
    const now = window.presets.now();
    const neutral = window.presets.neutral();
    const prompt = (now.system_prompt ?? "").trim();
    const messages = [...(prompt ? [{ role: "system", content: prompt }] : []),
      ...(said.length ? said : [{ role: "user", content: "Hello! Who are you?" }])];
    const shown = { model: window.memory.modelName(), messages };
    shown.temperature = now.temperature;
    for (const [name, value] of Object.entries(neutral)) {
      if (now[name] !== undefined && now[name] !== value) shown[name] = now[name];
    }
    shown.max_tokens = now.max_new_tokens;
    if (/^-?\d+$/.test(String(now.seed ?? ""))) shown.seed = Number(now.seed);
    const stop = (now.stop ?? "").split("\n").filter(Boolean);
    if (stop.length) shown.stop = stop;
    shown.prompt_cache_key = "my-conversation";
    return shown;
  }

  const OPENAI = ["model", "messages", "temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens", "seed", "stop"];
  const address = () => new URL("v1", document.baseURI).href;
  const json = (value) => JSON.stringify(value, null, 2);
  const indented = (value) => json(value).replaceAll("\n", "\n    ");

  const LANGUAGES = {
    curl: (all) => `# ${KEY_NOTE}: -H "Authorization: Bearer KEY"\n`
      + `curl ${address()}/chat/completions \\\n  -H "Content-Type: application/json" \\\n`
      + `  -d '${json(all).replaceAll("'", "'\\''")}'`,
    Python: (all) => {
      const known = Object.entries(all).filter(([name]) => OPENAI.includes(name));
      const others = Object.fromEntries(Object.entries(all).filter(([name]) => !OPENAI.includes(name)));
      const named = [...known, ["extra_body", others]];
      return "from openai import OpenAI  # pip install openai\n\n"
        + `client = OpenAI(base_url="${address()}", api_key="none")  # or a key of this server\n`
        + "reply = client.chat.completions.create(\n"
        + `${named.map(([name, value]) => `    ${name}=${indented(value)},`).join("\n")}\n)\n`
        + "print(reply.choices[0].message.content)";
    },
    JavaScript: (all) => `// ${KEY_NOTE} the header Authorization: "Bearer KEY"\n`
      + `const answer = await fetch("${address()}/chat/completions", {\n  method: "POST",\n`
      + '  headers: { "Content-Type": "application/json" },\n'
      + `  body: JSON.stringify(${json(all).replaceAll("\n", "\n  ")}),\n});\n`
      + "const reply = await answer.json();\nconsole.log(reply.choices[0].message.content);",
  };

  function show() {
    const all = fields();
    const code = make("code", {});
    const panel = make("pre", { id: "code-panel", role: "tabpanel", tabindex: "0" }, [code]);
    const tabs = Object.entries(LANGUAGES).map(([name, write]) => {
      const tab = make("button", { type: "button", role: "tab", class: "preset", id: `code-${name}`, "aria-controls": "code-panel" }, [name]);
      tab.addEventListener("click", () => choose(tab, write));
      return tab;
    });
    function choose(chosen, write) {
      for (const tab of tabs) {
        tab.setAttribute("aria-selected", String(tab === chosen));
        tab.tabIndex = tab === chosen ? 0 : -1;
      }
      panel.setAttribute("aria-labelledby", chosen.id);
      code.textContent = write(all);
    }
    const list = make("div", { role: "tablist", class: "chips", "aria-label": "Language" }, tabs);
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
    open("This conversation as code", (close) => {
      const copy = button("Copy", () => window.page.copyFrom(copy, code.textContent), "go");
      return [
        make("p", {}, ["The API is OpenAI's. The ", make("code", {}, ["prompt_cache_key"]), " names the memory: "
          + "with the next message under the same key, only what is new is read."]),
        list, panel,
        make("div", { class: "choices" }, [
          make("a", { class: "choice quiet", href: "v1/openapi.json", target: "_blank", rel: "noopener" }, ["All endpoints"]),
          button("Close", close), copy,
        ]),
      ];
    }, { isWide: true });
    choose(tabs[0], LANGUAGES.curl);
    tabs[0].focus();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("#as-code")) show();
  });
})();
