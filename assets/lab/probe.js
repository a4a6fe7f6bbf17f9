/* Recall probe: facts are hidden in long texts and asked for; depth × length as a map of shares. */
(() => {
  const { make } = window.markdown;
  const { whole, short, svg, text, picture } = window.plots;
  const { button, field, numberInput } = window.lab;
  const KIND = "recall-probe";
  const COLUMNS = ["Length, tokens", "Depth", "Right", "Asked", "Share", "95 % from", "95 % to"];
  const [LEFT, TOP, CELL, ROW, FOOT] = [64, 10, 92, 44, 38];
  const MAX_LENGTHS = 8;
  const DRAW_MS = 150;

  let facts = null;
  let parts = null;
  let running = null;
  let result = null; // as a file holds it: plan, cells, answers

  const percent = (share) => `${Math.round(100 * share)} %`;
  const depthName = (depth) => percent(depth);
  const numbersIn = (words) => words.split(/[\s,;]+/).filter(Boolean).map((word) => {
    const [, number, unit] = word.match(/^([\d._]+)\s*([kKmM]?)%?$/) ?? [];
    return Number(number?.replaceAll("_", "")) * ({ k: 1e3, m: 1e6 }[unit?.toLowerCase()] ?? 1);
  });
  const cellAt = (length, depth) => result.cells.find((cell) => cell.length === length && cell.depth === depth);
  const rowOf = (cell) => [cell.length, cell.depth, cell.right, cell.asked, cell.asked ? cell.right / cell.asked : null, cell.low, cell.high];
  const numAsked = () => result.answers.length;
  const numWanted = () => result.plan.lengths.length * result.plan.depths.length * result.plan.per_cell;

  // ---- the map ------------------------------------------------------------------------------------------

  function cellOf(cell, x, y) {
    const share = cell?.asked ? cell.right / cell.asked : 0;
    const words = cell?.asked
      ? `${whole(cell.length)} tokens, depth ${depthName(cell.depth)}: ${cell.right} of ${cell.asked} right; the true share is between ${percent(cell.low)} and ${percent(cell.high)}`
      : "not asked yet";
    const box = svg("rect", { class: cell?.asked ? "heat" : "heat unasked", x: x + 1, y: y + 1, width: CELL - 2, height: ROW - 2, rx: 5, "fill-opacity": (0.06 + 0.6 * share).toFixed(2) }, [svg("title", {}, [words])]);
    if (!cell?.asked) return [box];
    return [
      box, text("share", x + CELL / 2, y + 19, percent(share)),
      text("of", x + CELL / 2, y + 34, `${cell.right}/${cell.asked} · ${percent(cell.low).slice(0, -2)}–${percent(cell.high)}`),
    ];
  }

  function map() {
    const { lengths, depths } = result.plan;
    const box = { width: LEFT + CELL * lengths.length + 6, height: TOP + ROW * depths.length + FOOT };
    const drawn = depths.flatMap((depth, row) => [
      text("", LEFT - 8, TOP + ROW * row + ROW / 2 + 4, depthName(depth), "end"),
      ...lengths.flatMap((length, column) => cellOf(cellAt(length, depth), LEFT + CELL * column, TOP + ROW * row)),
    ]);
    const foot = TOP + ROW * depths.length;
    lengths.forEach((length, column) => {
      const isBeyond = result.trained && length > result.trained;
      drawn.push(text(isBeyond ? "beyond" : "", LEFT + CELL * (column + 0.5), foot + 16, `${short(length)}${isBeyond ? " *" : ""}`));
    });
    drawn.push(text("", LEFT - 8, foot + 16, "depth", "end"), text("", LEFT + (CELL * lengths.length) / 2, foot + 32, "tokens of the text"));
    const shown = picture(box, `Share of right answers by depth and length. ${summary()}`, drawn);
    shown.setAttribute("width", box.width);
    shown.setAttribute("height", box.height);
    return shown;
  }

  function summary() {
    const asked = result.cells.reduce((sum, cell) => sum + cell.asked, 0);
    const right = result.cells.reduce((sum, cell) => sum + cell.right, 0);
    return asked ? `${whole(right)} of ${whole(asked)} answers are right, ${percent(right / asked)}; a guess is right in ${(100 * result.chance).toFixed(1)} %.` : "Nothing is asked yet.";
  }

  function draw() {
    if (!result) return;
    parts.plots.replaceChildren(map());
    const beyond = result.trained && result.plan.lengths.some((length) => length > result.trained);
    parts.note.replaceChildren(
      `${summary()} In each cell: the share, right of asked, and where the true share is in 95 of 100 cases (Wilson). `,
      "The memory has the same size for every length: what is told later takes the place of what was told before, so facts fade.",
      ...(beyond ? [` * Longer than the ${whole(result.trained)} tokens that the model was trained on.`] : []),
    );
    parts.outcome.hidden = false;
    parts.table.draw();
    for (const tool of parts.tools) tool.disabled = Boolean(running);
    const isOpen = numAsked() < numWanted();
    parts.resume.hidden = Boolean(running) || !isOpen || !numAsked() || result.model !== facts.model;
    parts.resume.textContent = `Go on: ${whole(numWanted() - numAsked())} questions are left`;
  }
  const drawSoon = window.lab.paced(() => draw(), DRAW_MS);

  function tell(words, isTrouble = false) {
    parts.status.textContent = words;
    parts.status.classList.toggle("lab-trouble", isTrouble);
  }

  // ---- running --------------------------------------------------------------------------------------------

  function take(event) {
    if (event.kind === "waiting") tell(`Waiting in line: number ${event.position}.`);
    if (event.kind === "heldback") tell(`${event.reason}. It goes on by itself.`);
    if (event.kind === "reading") {
      parts.progress.value = event.tokens / event.of_tokens;
      tell(`Text ${event.sample + 1} of ${result.plan.per_cell}, ${short(event.length)} tokens: being read.`);
    }
    if (event.kind === "asked") {
      const { length, depth, sample, right, reply } = event.answer;
      result.answers.push([length, depth, sample, Number(right), reply]);
      result.cells = result.cells.map((cell) => (cell.length === length && cell.depth === depth ? event.cell : cell));
      parts.progress.value = event.done / event.total;
      parts.cost.textContent = event.tokens_read === null ? "" : `Each question reads ${event.tokens_read} tokens: the text is in the state already.`;
      if (event.done % result.plan.depths.length === 0) tell(`${whole(event.done)} of ${whole(event.total)} questions are answered.`);
      drawSoon();
    }
  }

  async function run() {
    running = window.lab.run("lab/probe", { ...result.plan, done: result.answers }, take);
    parts.form.classList.add("is-running");
    parts.progress.hidden = false;
    draw();
    parts.stop.focus();
    try {
      const how = await running.ended;
      if (how === "finished" && numAsked() < numWanted()) throw new Error("The connection broke off. Go on when the server is back.");
      tell(how === "stopped" ? `Stopped. ${summary()}` : `Done. ${summary()}`);
    } catch (error) {
      tell(error.message, true);
    }
    running = null;
    parts.form.classList.remove("is-running");
    parts.progress.hidden = true;
    draw();
    (parts.resume.hidden ? parts.start : parts.resume).focus();
  }

  function start() {
    const plan = {
      lengths: [...new Set(numbersIn(parts.lengths.value))].sort((a, b) => a - b),
      depths: [...new Set(numbersIn(parts.depths.value).map((depth) => depth / 100))].sort((a, b) => a - b),
      per_cell: Number(parts.perCell.value), seed: Number(parts.seed.value),
    };
    if (!plan.lengths.length || !plan.depths.length || [...plan.lengths, ...plan.depths].some(Number.isNaN)) {
      tell("Lengths are tokens, as 500, 2k, 8k; depths are per cent, as 0, 50, 100.", true);
      return;
    }
    if (plan.lengths.length > MAX_LENGTHS) { tell(`At most ${MAX_LENGTHS} lengths here; the command line takes more.`, true); return; }
    result = {
      kind: KIND, version: 1, model: facts.model, trained: facts.trained, date: new Date().toISOString(), chance: facts.chance, plan,
      cells: plan.lengths.flatMap((length) => plan.depths.map((depth) => ({ length, depth, asked: 0, right: 0, low: 0, high: 1 }))),
      answers: [],
    };
    run();
  }

  function opened(value) {
    if (!Array.isArray(value.cells) || !Array.isArray(value.answers) || !Array.isArray(value.plan?.lengths)) throw new Error("no cells");
    const before = result;
    result = { trained: facts.model === value.model ? facts.trained : null, ...value };
    try {
      draw();
    } catch (error) { // not of ours
      result = before;
      throw error;
    }
    const { lengths, depths, per_cell: perCell, seed } = value.plan;
    parts.lengths.value = lengths.join(", ");
    parts.depths.value = depths.map((depth) => Number((100 * depth).toFixed(3))).join(", ");
    Object.assign(parts.perCell, { value: String(perCell) });
    parts.seed.value = String(seed);
    tell(`Opened: ${value.model}. ${summary()}`);
  }

  // ---- the form -------------------------------------------------------------------------------------------

  function build(place) {
    const name = () => `recall-${result.model}-seed-${result.plan.seed}`.replaceAll(/[^\w.-]+/g, "-");
    const title = () => `${result.model}: recall by depth and length, seed ${result.plan.seed}`;
    const sentences = () => [summary(), "In each cell: share, right of asked, and Wilson's interval (95 %)."];
    const input = (id, value) => make("input", { type: "text", id, value, inputmode: "text", autocomplete: "off" });
    parts = {
      lengths: input("probe-lengths", "300, 600, 1200, 2400"),
      depths: input("probe-depths", "0, 25, 50, 75, 100"),
      perCell: numberInput("probe-per-cell", 5, { min: 1, max: 1_000 }),
      seed: numberInput("probe-seed", 0, { min: 0, max: 2_147_483_647 }),
      status: make("p", { class: "lab-status", role: "status" }),
      progress: make("progress", { max: "1", value: "0", "aria-label": "How far the probe is", hidden: "" }),
      cost: make("small", {}),
      plots: make("div", { class: "plots map", tabindex: "0", role: "region", "aria-label": "The map" }),
      note: make("figcaption", { class: "lab-note" }),
      table: window.lab.tableBehind("The numbers behind the map", COLUMNS, () => result.cells.map((cell) =>
        [whole(cell.length), depthName(cell.depth), cell.right, cell.asked, cell.asked ? percent(cell.right / cell.asked) : "", percent(cell.low), percent(cell.high)])),
    };
    parts.start = button("Run", start, "go");
    parts.stop = button("Stop", () => running?.stop());
    parts.stop.classList.add("lab-stop");
    parts.resume = button("Go on", run, "go");
    parts.resume.hidden = true;
    parts.tools = [
      button("JSON", () => window.lab.saveJson(name(), result)),
      button("CSV", () => window.lab.saveCsv(name(), COLUMNS, result.cells.map(rowOf))),
      button("SVG", () => window.lab.saveSvg(name(), parts.outcome, title(), sentences())),
      button("PNG", () => window.lab.savePng(name(), parts.outcome, title(), sentences())),
    ];
    parts.form = make("div", { class: "card lab-form" }, [
      make("p", { class: "lab-intro" }, ["Hides facts (“Mira lives in Oslo.”) at chosen depths of a made-up chronicle, has the model read it once, and asks for each. "
        + "A question begins from a copy of the state, so it costs its own tokens only. Replies are the likeliest ones: the same seed asks and answers the same. "
        + "For a night of it there is ", make("code", {}, ["falcon-mamba probe"]), ", whose file opens here."]),
      make("div", { class: "lab-fields" }, [
        field("Lengths, tokens", parts.lengths), field("Depths, % of the text", parts.depths),
        field("Questions a cell", parts.perCell), field("Seed", parts.seed),
      ]),
      make("div", { class: "lab-tools" }, [parts.start, parts.stop, parts.resume, ...window.lab.opener("Open a result", KIND, opened)]),
      parts.progress, parts.status,
    ]);
    parts.outcome = make("figure", { class: "card chart lab-outcome", hidden: "" }, [
      parts.plots, parts.note, parts.cost, parts.table.element,
      make("div", { class: "lab-tools", role: "group", "aria-label": "Save the result" }, ["Save as", ...parts.tools]),
    ]);
    place.replaceChildren(parts.form, parts.outcome);
  }

  window.lab.add({ id: "probe", title: "Recall probe", draw: (place, known) => { facts = known; build(place); } });
})();
