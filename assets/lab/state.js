/* Inside the state: what each turn has left in it, how full its layers are, how fast they forget. The
   figures come from ui/events/inspection.py; docs/concepts/looking.md says how each is measured. */
(() => {
  const { make } = window.markdown;
  const { whole, svg, text, path, floorTen, ceilTen, powers, axes, picture } = window.plots;
  const { button, field, numberInput, tableBehind } = window.lab;
  const KIND = "inside-the-state";
  const BOX = { width: 640, height: 210, left: 62, right: 14, top: 12, bottom: 24 };
  const MAX_TURNS = 16;
  const CUT = 28; // characters of a turn's words in a plot

  let parts = null;
  let asked = 0;
  let result = null;

  const percent = (share) => (share < 0.0995 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`);
  const nats = (value) => (value === null ? "–" : value < 0.001 ? "< 0.001" : value.toFixed(3));
  const lifeOf = (tokens) => (tokens >= 1e6 ? "> 1 M" : tokens >= 10 ? whole(tokens) : tokens.toFixed(1));
  const figure = (value) => Number(value.toPrecision(3));
  const short = (words) => (words.length > CUT ? `${words.slice(0, CUT - 1)}…` : words);
  const nameOf = (turn, at) => `${result.unit} ${result.num_turns - result.turns.length + at + 1}`;

  /** Layers along the bottom, named now and then. */
  function layers(num) {
    const step = Math.max(1, Math.ceil(num / 8));
    const ticks = Array.from({ length: Math.ceil(num / step) }, (_, i) => i * step);
    return { share: (value) => (num > 1 ? value / (num - 1) : 0.5), ticks, name: (at) => String(at + 1) };
  }

  const through = (values, x, y) => values.map((value, at) => [x(at), y(value)]);

  // ---- the plots --------------------------------------------------------------------------------------

  function influencePlot({ turns, decays }) {
    const row = 26;
    const box = { width: 640, height: 30 + row * turns.length, left: 214, right: 120, top: 6, bottom: 24 };
    const most = Math.max(...turns.flatMap((turn) => turn.layer_distances), 1e-9);
    const width = (box.width - box.left - box.right) / decays.length;
    const drawn = turns.flatMap((turn, at) => {
      const top = box.top + at * row;
      return [
        text("", box.left - 8, top + 16, short(turn.words || nameOf(turn, at)), "end"),
        ...turn.layer_distances.map((share, layer) => svg("rect", {
          class: "heat", x: (box.left + layer * width).toFixed(1), y: top, width: Math.max(0.5, width - 0.5).toFixed(1), height: row - 3,
          "fill-opacity": (0.04 + 0.96 * (share / most)).toFixed(3),
        }, [svg("title", {}, [`layer ${layer + 1}: ${percent(share)}`])])),
        text("", box.width - box.right + 8, top + 16, `${percent(turn.distance)}${turn.kl === null ? "" : ` · ${nats(turn.kl)} nats`}`, "start"),
      ];
    });
    for (const at of layers(decays.length).ticks) {
      drawn.push(text("", box.left + (at + 0.5) * width, box.height - 6, String(at + 1)));
    }
    return picture(box, `How far each layer would be from here without each ${result.unit}; the strongest, ${percent(most)}.`, drawn);
  }

  function normsPlot({ points, decays }) {
    const all = points.flatMap((point) => point.norms).filter((value) => value > 0);
    const [low, high] = [floorTen(Math.min(...all)), ceilTen(Math.max(...all) * 1.001)];
    const { x, y, drawn } = axes(BOX, layers(decays.length), { ...powers(low, high), name: (value) => String(Number(value.toPrecision(1))) });
    points.forEach((point, at) => {
      const isNow = at === points.length - 1;
      const line = path(isNow ? "state" : "earlier", through(point.norms, x, y));
      if (!isNow) line.setAttribute("opacity", (0.25 + 0.6 * (at / points.length)).toFixed(2));
      line.append(svg("title", {}, [`after ${whole(point.num_tokens)} tokens`]));
      drawn.push(line);
    });
    return picture(BOX, `Root mean square of each layer after ${points.map((point) => whole(point.num_tokens)).join(", ")} tokens.`, drawn);
  }

  function lifePlot({ decays }) {
    const all = decays.flatMap((layer) => layer.half_lives).map((tokens) => Math.min(tokens, 1e6));
    const [low, high] = [floorTen(Math.min(...all)), ceilTen(Math.max(...all) * 1.001)];
    const { x, y, drawn } = axes(BOX, layers(decays.length), { ...powers(low, high), name: lifeOf });
    const of = (at) => through(decays.map((layer) => Math.min(layer.half_lives[at], 1e6)), x, y);
    const band = (css, from, to) => {
      const closed = path(css, [...of(from), ...of(to).reverse()]);
      closed.setAttribute("d", `${closed.getAttribute("d")}Z`);
      closed.removeAttribute("fill");
      return closed;
    };
    drawn.push(band("band", 0, 4), band("band", 1, 3), path("state", of(2)));
    return picture(BOX, "Half-life of each layer's numbers in tokens: the middle, half of them, nine in ten.", drawn);
  }

  // ---- the tables behind them -------------------------------------------------------------------------

  const TURNS = ["", "Begins with", "Tokens", "State, relative", "Words, mean nats", "Next word, nats"];
  const turnRows = () => result.turns.map((turn, at) => [
    nameOf(turn, at), turn.words, `${turn.start}–${turn.end}`, percent(turn.distance), nats(turn.kl), nats(turn.next_token_kl),
  ]);
  const layerRows = () => result.decays.map((layer, at) => [
    at + 1, figure(result.points.at(-1).norms[at]), ...layer.half_lives.map(lifeOf), percent(result.turns.at(-1).layer_distances[at]),
  ]);
  const LAYERS = ["Layer", "Size now", "Half-life, 5 %", "25 %", "Middle", "75 %", "95 %", "Moved by the last"];

  // ---- what is shown ----------------------------------------------------------------------------------

  const formula = (what, source, address) => make("small", { class: "formula" }, [
    what, ...(source ? [" (", make("a", { href: address, target: "_blank", rel: "noopener" }, [source]), ")"] : []), ".",
  ]);
  const plot = (title, words, drawn, told) => [make("h3", {}, [title]), make("p", { class: "lab-intro" }, [words]), drawn, told];

  function draw() {
    const { unit, turns, num_scored_tokens: scored } = result;
    parts.plots.replaceChildren(
      ...plot(`What each ${unit} has left`,
        `The conversation was read again without each ${unit}. A row shows by how much every layer's state would differ from the state as it is; the figures behind it tell all layers together, and how differently the model would have expected the last ${scored} tokens. For the last ${unit}, this is what it moved.`,
        influencePlot(result),
        formula(`‖h − h′‖ / ‖h‖ over the recurrence's numbers; D(p ‖ p′) = Σ p·ln(p / p′) over the vocabulary`, "Kullback and Leibler, 1951", "https://doi.org/10.1214/aoms/1177729694")),
      ...plot("How full the layers are",
        `The size of each layer's numbers, now (strong) and before each ${unit} that was looked at (pale). It stays bounded however much is read.`,
        normsPlot(result), formula("√(mean of h²), h ← exp(Δ·A)·h + Δ·B·x", "Mamba, algorithm 2", "https://arxiv.org/abs/2312.00752")),
      ...plot("How fast they forget",
        `After so many tokens half of a number is gone, unless new words renew it. The line is the middle of a layer's numbers, the bands hold half of them and nine in ten. The steps Δ depend on the words: these are the mean of the last ${scored} tokens.`,
        lifePlot(result), formula("ln 2 / (−Δ·A), Δ = softplus(dt + bias), A = −exp(A_log)", "Mamba, §3.2", "https://arxiv.org/abs/2312.00752")),
    );
    const strongest = turns.slice(0, -1).reduce((most, turn) => (turn.distance > (most?.distance ?? 0) ? turn : most), null);
    tell(`${whole(result.num_tokens)} tokens, ${turns.length} of ${result.num_turns} ${unit}s looked at; ${whole(result.num_tokens_read)} tokens read for it in ${result.seconds.toFixed(1)} s.`
      + (strongest ? ` Of the earlier ones “${short(strongest.words)}” is the most present: ${percent(strongest.distance)}.` : ""));
    parts.outcome.hidden = false;
    for (const table of parts.tables) table.draw();
  }

  function tell(words, isTrouble = false) {
    parts.status.textContent = words;
    parts.status.classList.toggle("lab-trouble", isTrouble);
  }

  function look() {
    asked += 1;
    parts.start.disabled = true;
    tell("Reading the conversation again, behind everybody's replies.");
    window.page.tell("inspection", "look", { turn: asked, turns: Number(parts.turns.value) });
  }

  function take(value) {
    if (!value?.turn || value.turn !== asked || !parts) return;
    asked += 1; // an answer is shown once
    parts.start.disabled = false;
    if (value.problem) return tell(value.problem, true);
    result = { kind: KIND, version: 1, date: new Date().toISOString(), model: parts.model, ...value };
    return draw();
  }

  function build(place, facts) {
    const name = () => `inside-${result.model}-${result.num_tokens}`.replaceAll(/[^\w.-]+/g, "-");
    const title = () => `${result.model}: inside the state after ${whole(result.num_tokens)} tokens`;
    parts = {
      model: facts.model,
      turns: numberInput("look-turns", 8, { min: 1, max: MAX_TURNS }),
      status: make("p", { class: "lab-status", role: "status" }),
      plots: make("div", { class: "plots" }),
      tables: [tableBehind("The turns as numbers", TURNS, turnRows), tableBehind("The layers as numbers", LAYERS, layerRows)],
    };
    parts.start = button("Look into the state", look, "go");
    parts.outcome = make("figure", { class: "card chart lab-outcome", hidden: "" }, [
      parts.plots, ...parts.tables.map((table) => table.element),
      make("div", { class: "lab-tools", role: "group", "aria-label": "Save the result" }, [
        "Save as", button("JSON", () => window.lab.saveJson(name(), result)),
        button("CSV", () => window.lab.saveCsv(name(), LAYERS, layerRows())),
        button("SVG", () => window.lab.saveSvg(name(), parts.outcome, title(), [])),
        button("PNG", () => window.lab.savePng(name(), parts.outcome, title(), [])),
      ]),
    ]);
    place.replaceChildren(make("div", { class: "card lab-form" }, [
      make("p", { class: "lab-intro" }, ["Looks into the memory of the conversation that is open in the chat. It is measured on copies: "
        + "the conversation stays as it is, and its turns are read again for it, which is work of the server's."]),
      make("div", { class: "lab-fields" }, [field("Newest turns to look at", parts.turns, `1 to ${MAX_TURNS}; each is left out once`)]),
      make("div", { class: "lab-tools" }, [parts.start]), parts.status,
    ]), parts.outcome);
  }

  window.page.drawsWith("inspection", take);
  window.lab.add({ id: "state", title: "Inside the state", draw: build });
})();
