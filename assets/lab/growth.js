/* Memory against context: one long text is read, and speed and memory are drawn while it is, beside the
   computed cache of an attention model. */
(() => {
  const { make } = window.markdown;
  const { bytes, whole, short, line, text, path, svg, floorTen, ceilTen, powers, steps, axes, picture } = window.plots;
  const { button, field, numberInput } = window.lab;
  const KIND = "memory-against-context";
  const [MEMORY_HEIGHT, SPEED_HEIGHT, MIN_WIDTH] = [280, 150, 280];
  const LENGTHS = [1_000, 10_000, 100_000, 1_000_000];
  const SHAPE = [
    ["layers", "Layers", 1, 1_000, "1"], ["kv_heads", "Key-value heads", 1, 1_024, "1"],
    ["head_dim", "Head size", 1, 4_096, "1"], ["bytes_per_number", "Bytes a number", 0.25, 8, "any"],
    ["windowed_layers", "Layers with a window", 0, 1_000, "1"], ["window", "Window, tokens", 0, 10_000_000, "1"],
  ];
  const COLUMNS = ["Tokens", "Seconds", "Tokens/s", "State, bytes", "Process, bytes", "GPU, bytes", "Cache of attention, bytes"];
  const DRAW_MS = 150;

  let facts = null;
  let parts = null;
  let running = null;
  let result = null; // what is drawn, and can be saved

  /** Bytes of the cache at so many tokens: its line is straight between its corners. */
  function cacheAt(attention, tokens) {
    const { corners } = attention;
    const at = Math.max(1, corners.findIndex(([count]) => count >= tokens));
    const [[x0, y0], [x1, y1]] = [corners[at - 1], corners[at]];
    return y0 + ((y1 - y0) * (tokens - x0)) / (x1 - x0);
  }

  const rowOf = (point) => [
    point.tokens, point.seconds, point.tokens_per_s, point.state_bytes, point.process_bytes, point.gpu_bytes,
    cacheAt(result.attention, point.tokens),
  ];

  const cellText = (value) => (value === null ? "" : Number.isInteger(value) ? whole(value) : value.toFixed(2));

  // ---- the two plots ----------------------------------------------------------------------------------

  /** As wide as there is room, so that letters have their size. */
  const boxOf = (height) => ({
    width: Math.max(MIN_WIDTH, Math.round(parts.plots.clientWidth)), height, left: 62, right: 14, top: 12, bottom: 24,
  });

  function memoryPlot({ points, attention, asked }) {
    const box = boxOf(MEMORY_HEIGHT);
    const to = Math.max(asked, 1_000);
    const known = points.flatMap((point) => [point.state_bytes, point.process_bytes, point.gpu_bytes]).filter(Boolean);
    const from = 100;
    const low = floorTen(Math.min(...known, cacheAt(attention, from)));
    const high = ceilTen(Math.max(...known, cacheAt(attention, to)) * 1.01);
    const { x, y, drawn } = axes(box, { ...powers(from, ceilTen(to)), name: short }, { ...powers(low, high), name: bytes });
    const through = (read) => points.filter((point) => point.tokens >= from && read(point)).map((point) => [x(point.tokens), y(read(point))]);
    const last = points.at(-1)?.tokens ?? 0;
    const counts = Array.from({ length: 60 }, (_, i) => from * (ceilTen(to) / from) ** (i / 59));
    for (const [corner] of attention.corners) if (corner > from && corner < ceilTen(to)) counts.push(corner);
    counts.sort((a, b) => a - b);
    const cache = (shown) => shown.map((count) => [x(count), y(cacheAt(attention, count))]);
    const cut = Math.max(last, from);
    drawn.push(path("kv ahead", cache([cut, ...counts.filter((count) => count > cut)])));
    drawn.push(path("kv", cache([...counts.filter((count) => count < cut), cut])));
    drawn.push(path("process", through((point) => point.process_bytes)));
    drawn.push(path("gpu", through((point) => point.gpu_bytes)));
    drawn.push(path("state", through((point) => point.state_bytes)));
    if (result.trained && result.trained < ceilTen(to)) {
      drawn.push(line("trained", x(result.trained), box.top, x(result.trained), box.height - box.bottom));
      drawn.push(text("", x(result.trained) + 4, box.height - box.bottom - 5, "trained", "start"));
    }
    if (last >= from) {
      const now = points.at(-1);
      for (const [css, value] of [["state", now.state_bytes], ["kv", cacheAt(attention, last)]]) {
        if (value) drawn.push(svg("circle", { class: css, cx: x(last), cy: y(value), r: 4 }));
      }
    }
    const label = `Memory over tokens, in powers of ten. ${sentenceNow()}`;
    return picture(box, label, drawn);
  }

  function speedPlot({ points, asked }) {
    const box = boxOf(SPEED_HEIGHT);
    const measured = points.filter((point) => point.tokens_per_s);
    const most = Math.max(1, ...measured.map((point) => point.tokens_per_s));
    const across = { ...steps(asked), name: short };
    const { x, y, drawn } = axes(box, { ...across, share: (value) => Math.min(1, across.share(value)) },
      { ...steps(most), name: (value) => whole(value) });
    drawn.push(path("speed", measured.map((point) => [x(point.tokens), y(point.tokens_per_s)])));
    const now = measured.at(-1);
    return picture(box, `Tokens read per second over tokens${now ? `; ${whole(now.tokens_per_s)} at the last` : ""}.`, drawn);
  }

  function sentenceNow() {
    const now = result.points.at(-1);
    if (!now) return "Nothing is read yet.";
    const cache = bytes(cacheAt(result.attention, now.tokens));
    const state = now.state_bytes ? bytes(now.state_bytes) : "unknown";
    return `At ${whole(now.tokens)} tokens: this model's state ${state}; cache of ${result.attention.name}, computed, ${cache}.`;
  }

  // ---- what is shown ----------------------------------------------------------------------------------

  function draw() {
    if (!result) return;
    parts.outcome.hidden = false; // or it has no width
    parts.plots.replaceChildren(
      make("h3", {}, ["Memory over tokens"]), memoryPlot(result), make("h3", {}, ["Reading, tokens per second over tokens"]), speedPlot(result),
    );
    const now = result.points.at(-1);
    const key = (css, words, value) => make("span", { class: `key ${css}` }, [`${words}: `, make("b", {}, [value])]);
    const known = [
      key("state", "This model's state", now?.state_bytes ? `${bytes(now.state_bytes)} at any length` : "not known"),
      key("kv", `Cache of ${result.attention.name}, computed`, bytes(cacheAt(result.attention, now?.tokens ?? 0))),
    ];
    if (now?.process_bytes) known.push(key("process", "This server's process, all of it", bytes(now.process_bytes)));
    if (now?.gpu_bytes) known.push(key("gpu", "GPU memory, all of it", bytes(now.gpu_bytes)));
    if (now) known.push(key("speed", "Read", `${whole(now.tokens)} of ${whole(result.asked)} tokens${now.tokens_per_s ? `, ${whole(now.tokens_per_s)} tokens/s` : ""}`));
    if (result.end?.write_tokens_per_s) known.push(key("", `Writing after that`, `${whole(result.end.write_tokens_per_s)} tokens/s`));
    parts.legend.replaceChildren(...known);
    parts.table.draw();
    for (const tool of parts.tools) tool.disabled = Boolean(running) || !result.points.length;
  }
  const drawSoon = window.lab.paced(() => draw(), DRAW_MS);

  function tell(words, isTrouble = false) {
    parts.status.textContent = words;
    parts.status.classList.toggle("lab-trouble", isTrouble);
  }

  function shapeNow() {
    const known = facts.attention[Number(parts.rival.value)];
    const shape = Object.fromEntries(SHAPE.map(([name]) => [name, Number(parts.shape[name].value)]));
    const isKnown = known && SHAPE.every(([name]) => shape[name] === known[name]);
    return { ...shape, name: isKnown ? known.name : "your attention model" };
  }

  function showShape(attention) {
    const known = facts.attention.findIndex(({ name }) => name === attention.name);
    if (known >= 0) parts.rival.value = String(known);
    for (const [name] of SHAPE) parts.shape[name].value = String(attention[name] ?? 0);
    parts.perToken.textContent = `${whole(attention.per_token)} bytes a token: 2 × layers × heads × head size × bytes`;
  }

  async function reshape() {
    try {
      const answer = await window.lab.ask("lab/attention", shapeNow());
      parts.attention = await answer.json();
      showShape(parts.attention);
      tell("");
      if (result) Object.assign(result, { attention: parts.attention });
      draw();
    } catch (error) {
      tell(error.message, true);
    }
  }

  function chooseRival() {
    const known = facts.attention[Number(parts.rival.value)];
    for (const [name] of SHAPE) parts.shape[name].value = String(known[name]);
    return reshape();
  }

  // ---- running ----------------------------------------------------------------------------------------

  function take(event) {
    if (event.kind === "waiting") tell(`Waiting in line: number ${event.position}.`);
    if (event.kind === "heldback") tell(`${event.reason}. It goes on by itself.`);
    if (event.kind === "grown") result.end = event;
    if (event.kind === "point") {
      const { kind, ...point } = event;
      result.points.push(point);
      const percent = Math.floor((10 * point.tokens) / result.asked) * 10;
      if (percent !== result.told) tell(`Reading: ${percent} % of ${whole(result.asked)} tokens.`);
      result.told = percent;
    }
    drawSoon();
  }

  async function start() {
    const asked = Number(parts.tokens.value);
    const ownText = parts.source.value === "own" ? parts.text.value : "";
    if (parts.source.value === "own" && !ownText.trim()) { tell("Paste a text first, or take the chronicle.", true); parts.text.focus(); return; }
    result = {
      kind: KIND, version: 1, model: facts.model, trained: facts.trained, date: new Date().toISOString(), asked,
      text: ownText ? "own" : "chronicle", attention: parts.attention, points: [], end: null, status: "running",
    };
    tell("Making the text.");
    const body = { tokens: asked, text: ownText, written: Number(parts.written.value) };
    running = window.lab.run("lab/growth", body, take);
    parts.form.classList.add("is-running");
    draw();
    parts.stop.focus();
    try {
      result.status = await running.ended;
      const { end } = result;
      if (result.status === "finished" && !end) throw new Error("The connection broke off.");
      tell(result.status === "stopped" ? `Stopped. ${sentenceNow()}`
        : `Done in ${end.seconds.toFixed(1)} s. ${sentenceNow()}`);
    } catch (error) {
      result.status = "failed";
      tell(error.message, true);
    }
    running = null;
    parts.form.classList.remove("is-running");
    parts.start.focus();
    draw();
  }

  function saved() {
    const { told, ...kept } = result;
    return kept;
  }

  function opened(value) {
    if (!Array.isArray(value.points) || !value.points.length || !Array.isArray(value.attention?.corners)) throw new Error("no points");
    const before = result;
    result = value;
    try {
      draw();
    } catch (error) { // not of ours
      result = before;
      throw error;
    }
    parts.attention = value.attention;
    showShape(value.attention);
    tell(`Opened: ${value.model}, ${String(value.date).slice(0, 10)}. ${sentenceNow()}`);
  }

  // ---- the form ---------------------------------------------------------------------------------------

  function lengthPicks() {
    return make("div", { class: "chips" }, LENGTHS.map((count) => {
      const made = button(short(count), () => { parts.tokens.value = String(count); }, "preset");
      if (facts.maxTokens && count > facts.maxTokens) {
        Object.assign(made, { disabled: true, title: `This server reads at most ${whole(facts.maxTokens)} tokens (--max-prompt-tokens)` });
      }
      return made;
    }));
  }

  function build(place) {
    const name = () => `memory-${result.model}-${result.asked}`.replaceAll(/[^\w.-]+/g, "-");
    const title = () => `${result.model}: memory against context, ${String(result.date).slice(0, 10)}`;
    parts = {
      tokens: numberInput("growth-tokens", Math.min(10_000, facts.maxTokens ?? 10_000), { min: 1_000, max: 1_000_000 }),
      written: numberInput("growth-written", 32, { min: 0, max: 256 }),
      source: make("select", { id: "growth-source" }, [
        make("option", { value: "chronicle" }, ["A made-up chronicle"]), make("option", { value: "own" }, ["A text of my own"]),
      ]),
      text: make("textarea", { id: "growth-text", rows: "5", dir: "auto" }),
      rival: make("select", { id: "growth-rival" }, facts.attention.map(({ name: known }, i) => make("option", { value: String(i) }, [known]))),
      shape: Object.fromEntries(SHAPE.map(([key, , min, max, step]) => [key, numberInput(`growth-${key}`, 0, { min, max, step })])),
      perToken: make("small", {}),
      status: make("p", { class: "lab-status", role: "status" }),
      plots: make("div", { class: "plots" }),
      legend: make("figcaption", {}),
      table: window.lab.tableBehind("The numbers behind the plot", COLUMNS, () => result.points.map((point) => rowOf(point).map(cellText))),
    };
    parts.start = button("Run", start, "go");
    parts.stop = button("Stop", () => running?.stop());
    parts.stop.classList.add("lab-stop");
    const own = field("The text, begun again where it is too short; or a file of it", parts.text);
    own.hidden = true;
    const file = make("input", { type: "file", "aria-label": "A text file", accept: "text/*,.txt,.md,.csv,.json,.py,.html" });
    file.addEventListener("change", async () => { if (file.files[0]) parts.text.value = await file.files[0].text(); });
    own.append(file);
    parts.source.addEventListener("change", () => { own.hidden = parts.source.value !== "own"; });
    parts.rival.addEventListener("change", chooseRival);
    for (const input of Object.values(parts.shape)) input.addEventListener("change", reshape);
    parts.tools = [
      button("JSON", () => window.lab.saveJson(name(), saved())),
      button("CSV", () => window.lab.saveCsv(name(), COLUMNS, result.points.map(rowOf))),
      button("SVG", () => window.lab.saveSvg(name(), parts.outcome, title(), [])),
      button("PNG", () => window.lab.savePng(name(), parts.outcome, title(), [])),
    ];
    const limit = facts.maxTokens ? `at most ${whole(Math.min(facts.maxTokens, 1_000_000))} here` : "";
    parts.form = make("div", { class: "card lab-form" }, [
      make("p", { class: "lab-intro" }, ["Reads a text of any length with this server's model and draws what it takes. "
        + "The model's memory is one block of constant size; an attention model keeps keys and values of every token."]),
      make("div", { class: "lab-fields" }, [
        field("Tokens to read", parts.tokens, limit), field("Text", parts.source), field("Then write, tokens", parts.written),
      ]),
      lengthPicks(), own,
      make("details", { class: "lab-shape" }, [
        make("summary", {}, ["Compared with"]), field("Attention model", parts.rival),
        make("div", { class: "lab-fields" }, SHAPE.map(([key, label]) => field(label, parts.shape[key]))), parts.perToken,
      ]),
      make("div", { class: "lab-tools" }, [parts.start, parts.stop, ...window.lab.opener("Open a result", KIND, opened)]),
      parts.status,
    ]);
    parts.outcome = make("figure", { class: "card chart lab-outcome", hidden: "" }, [
      parts.plots, parts.legend, parts.table.element,
      make("div", { class: "lab-tools", role: "group", "aria-label": "Save the result" }, ["Save as", ...parts.tools]),
    ]);
    place.replaceChildren(parts.form, parts.outcome);
    new ResizeObserver(() => {
      const width = parts.plots.clientWidth;
      if (width && width !== parts.width) drawSoon();
      parts.width = width;
    }).observe(parts.outcome);
    chooseRival();
  }

  window.lab.add({ id: "growth", title: "Memory against context", draw: (place, known) => { facts = known; build(place); } });
})();
