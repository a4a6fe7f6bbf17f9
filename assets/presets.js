/* Presets: the page's own, and those of the visitor: a system prompt and all settings under a name.
   They are kept in this browser, leave as a file or as a link, and come back from either. A link
   carries its preset behind the #, which no server is sent. */
(() => {
  const { make } = window.markdown;
  const { button } = window.dialogs;
  const KEY = "falcon-mamba-presets";
  const MAX_PRESETS = 100;
  const MAX_CHARS = 60;
  const MAX_FILE_BYTES = 1_000_000;
  const MARK = "#preset=";

  let fixed = {}; // the page's own, by name
  let neutral = {}; // what has no effect
  let now = {}; // what the controls show
  let own = read();
  let parts = null;

  // ---- keeping -------------------------------------------------------------------------------------

  /** Presets from anywhere, as far as they are sound; the server checks the values when one is used. */
  function sound(given) {
    const listed = Array.isArray(given?.presets) ? given.presets : [given];
    return listed.filter((one) => typeof one?.name === "string" && one.name.trim()
      && one.values !== null && typeof one.values === "object" && !Array.isArray(one.values))
      .map(({ name, values }) => ({ name: name.trim().slice(0, MAX_CHARS), values }));
  }

  function read() {
    try { return sound(JSON.parse(window.page.recall(KEY) ?? "{}")).slice(0, MAX_PRESETS); } catch { return []; }
  }

  function keep(presets) {
    own = presets.slice(0, MAX_PRESETS);
    if (!window.page.remember(KEY, JSON.stringify({ presets: own }))) {
      window.page.note("This browser has no room to keep presets; they are here until the page is closed.");
    }
    draw();
  }

  /** A preset of the same name is replaced. */
  const add = (presets) => keep([
    ...own.filter((one) => !presets.some(({ name }) => name === one.name)), ...presets,
  ]);

  const isSet = (values) => Object.entries(values).every(([name, value]) =>
    (now[name] ?? "") === (value ?? "") || (value !== "" && Number(now[name]) === Number(value ?? NaN)));
  const current = () => own.find((one) => isSet(one.values));

  // ---- leaving and coming ----------------------------------------------------------------------------

  function toText(value) {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))
      .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  function fromText(text) {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  }

  /** Only what differs from the page's own beginnings travels: links stay short. */
  function linkTo(preset) {
    const address = new URL(location.href);
    address.search = "";
    address.hash = "";
    return address.href + MARK + toText(preset);
  }

  function save(presets, name) {
    const file = new Blob([JSON.stringify({ presets }, null, 1)], { type: "application/json" });
    const link = make("a", { download: `${name}.json`, href: URL.createObjectURL(file) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async function take(file) {
    let found = [];
    try { if (file.size <= MAX_FILE_BYTES) found = sound(JSON.parse(await file.text())); } catch { /* no JSON */ }
    if (!found.length) return window.page.note(`${file.name} holds no presets; Export writes such a file.`);
    add(found);
    return window.page.note(`${found.length} preset${found.length > 1 ? "s are" : " is"} here now.`);
  }

  /** A preset from a link is shown before it is used: it may set a system prompt. */
  function offer(preset) {
    const words = describe(preset.values);
    window.dialogs.open(`A preset came with this link: ${preset.name}`, (close) => [
      preset.values.system_prompt
        ? make("pre", { class: "quoted", dir: "auto", tabindex: "0", "aria-label": "Its system prompt" }, [String(preset.values.system_prompt)])
        : make("p", {}, ["It has no system prompt."]),
      make("p", {}, [words]),
      make("div", { class: "choices" }, [
        button("Not now", close),
        button("Use it once", () => { close(); use(preset); }),
        button("Use and keep", () => { close(); add([preset]); use(preset); }, "go"),
      ]),
    ]);
  }

  const SHOWN = { temperature: "temperature", top_p: "top p", top_k: "top k", min_p: "min p", max_new_tokens: "at most tokens", seed: "seed" };
  const describe = (values) => Object.entries(SHOWN)
    .filter(([name]) => values[name] !== undefined && values[name] !== null && values[name] !== "")
    .map(([name, label]) => `${label} ${values[name]}`).join(" · ");

  function arrive() {
    if (!location.hash.startsWith(MARK)) return;
    const text = location.hash.slice(MARK.length);
    history.replaceState(history.state, "", location.pathname + location.search);
    let found = [];
    try { found = sound(fromText(text)); } catch { /* cut, or no preset at all */ }
    if (found.length) offer(found[0]);
    else window.page.note("The link's preset is damaged; ask for the link once more.");
  }

  const use = ({ values }) => window.page.tell("presets", "act", { values });

  // ---- the row ---------------------------------------------------------------------------------------

  function chip(label, isOn, run) {
    const made = make("button", { type: "button", class: "preset", "aria-pressed": String(isOn), dir: "auto" }, [label]);
    made.addEventListener("click", run);
    return made;
  }

  async function keepNow() {
    const name = (await window.dialogs.ask("A name for these settings", current()?.name ?? ""))?.trim();
    if (!name) return;
    add([{ name: name.slice(0, MAX_CHARS), values: { ...now } }]);
    window.page.note(`“${name}” is kept in this browser, with the system prompt.`);
  }

  function draw() {
    if (!parts) return;
    const mine = current();
    const chips = [
      ...Object.entries(fixed).map(([name, style]) =>
        chip(name, !mine && isSet(style), () => window.page.tell("presets", "act", { name }))),
      ...own.map((one) => chip(one.name, one === mine, () => use(one))),
    ];
    const tools = [button("Save as…", keepNow, "quiet"), button("Import", () => parts.file.click(), "quiet")];
    if (own.length) tools.push(button("Export all", () => save(own, "presets"), "quiet"));
    if (mine) {
      tools.push(button("Copy link", async () => {
        const isCopied = await window.page.copy(linkTo(mine));
        window.page.note(isCopied ? `The link to “${mine.name}” is copied. Who opens it here may use the preset.`
          : `This browser does not let the page copy. The link: ${linkTo(mine)}`);
      }, "quiet"), button("Delete", () => {
        const before = own;
        keep(own.filter((one) => one !== mine));
        window.page.note(`“${mine.name}” is deleted.`, { label: "Undo", run: () => keep(before) });
      }, "quiet"));
    }
    const focused = [...parts.place.querySelectorAll("button")].indexOf(document.activeElement);
    parts.chips.replaceChildren(...chips);
    parts.tools.replaceChildren(...tools);
    if (focused >= 0) parts.place.querySelectorAll("button")[focused]?.focus();
  }

  function begin(place) {
    const file = make("input", { type: "file", hidden: "", accept: ".json,application/json" });
    file.addEventListener("change", () => {
      if (file.files[0]) take(file.files[0]);
      file.value = "";
    });
    const made = {
      place, file,
      chips: make("div", { class: "chips", role: "group", "aria-label": "Presets" }),
      tools: make("div", { class: "preset-tools" }),
    };
    place.replaceChildren(made.chips, made.tools, file);
    return made;
  }

  window.page.drawsWith("presets", (value) => {
    if (value?.fixed) ({ fixed, now, neutral } = value);
    draw();
    window.systemCost?.check();
  });
  window.page.drawsWith("preset-row", (value, { element }) => { // when the settings are opened
    const place = element.querySelector(".presets");
    if (!parts || parts.place !== place) parts = begin(place);
    draw();
  });

  let isArrived = false;
  window.page.whenReady(() => {
    if (!isArrived) arrive();
    isArrived = true;
  });
  window.addEventListener("hashchange", arrive);
  window.addEventListener("storage", (event) => {
    if (event.key === KEY) { own = read(); draw(); }
  });

  window.presets = {
    changedTo(values) {
      now = values;
      draw();
      return values;
    },
    now: () => now,
    neutral: () => neutral,
    /** All presets, by name. */
    listed: () => [
      ...Object.entries(fixed).map(([name, values]) => ({ name, values: { ...now, ...values } })), ...own,
    ],
  };
})();
