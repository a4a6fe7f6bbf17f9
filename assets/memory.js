/* Draws the side panel: the memory card with the strip of the state, the rail of restore points, the
   chart against attention, and the figures. The values come from ui/view/panel.py. */
(() => {
  const { make } = window.markdown;
  const { bytes, whole, short, svg, line, text, floorTen, ceilTen, powers, axes, picture } = window.plots;
  const RIVAL_KEY = "falcon-mamba-rival";
  const BOX = { width: 320, height: 132, left: 50, right: 10, top: 8, bottom: 22 };
  const [MIN_TOKENS, MAX_TOKENS] = [100, 1_000_000];

  let values = null;
  let strip = ""; // the picture that is shown; a value without one leaves it
  let parts = null; // the elements, made once

  // ---- the chart: bytes over tokens, both in powers of ten ------------------------------------------

  function drawChart() {
    const { stateBytes, tokens, trained, rivals } = values;
    parts.chart.hidden = !rivals.length || !stateBytes;
    if (parts.chart.hidden) return;
    const [name, perToken] = rivals[Number(parts.rival.value)] ?? rivals[0];
    const end = perToken * MAX_TOKENS;
    const low = floorTen(Math.min(stateBytes, perToken * MIN_TOKENS));
    const high = ceilTen(Math.max(stateBytes * 2, end));
    const { x, y, drawn } = axes(BOX,
      { ...powers(MIN_TOKENS, MAX_TOKENS), name: short }, { ...powers(low, high), name: bytes });
    const now = Math.min(Math.max(tokens ?? 0, MIN_TOKENS), MAX_TOKENS);
    const [first, last, head, foot] = [BOX.left, BOX.width - BOX.right, BOX.top, BOX.height - BOX.bottom];
    const even = stateBytes / perToken;
    if (trained && trained < MAX_TOKENS && trained > MIN_TOKENS) {
      drawn.push(line("trained", x(trained), head, x(trained), foot));
      drawn.push(text("", x(trained) + 4, head + 9, "trained", "start"));
    }
    drawn.push(
      line("kv ahead", x(now), y(perToken * now), x(MAX_TOKENS), y(end)),
      line("kv", x(MIN_TOKENS), y(perToken * MIN_TOKENS), x(now), y(perToken * now)),
      line("state", first, y(stateBytes), last, y(stateBytes)),
    );
    if (even > MIN_TOKENS && even < MAX_TOKENS) {
      drawn.push(svg("circle", { class: "even", cx: x(even), cy: y(stateBytes), r: 3 }));
      drawn.push(text("", x(even) + 4, y(stateBytes) + 14, `even at ${whole(even)}`, "start"));
    }
    if (tokens) {
      drawn.push(line("now", x(now), head, x(now), foot));
      drawn.push(svg("circle", { class: "kv", cx: x(now), cy: y(perToken * now), r: 3.5 }));
      drawn.push(svg("circle", { class: "state", cx: x(now), cy: y(stateBytes), r: 3.5 }));
    }
    const kvNow = tokens ? bytes(perToken * tokens) : "it grows";
    const label = `Memory over the length of the context, ${short(MIN_TOKENS)} to ${short(MAX_TOKENS)} `
      + `tokens, in powers of ten. This model's state: ${bytes(stateBytes)}, constant. Computed cache `
      + `of ${name}: ${tokens ? `${kvNow} with ${whole(tokens)} tokens, ` : ""}${bytes(end)} at 1 M.`
      + ` They are even at ${whole(even)} tokens.`;
    parts.picture.replaceChildren(picture(BOX, label, drawn));
    const key = (css, words, figure) => make("span", { class: `key ${css}` }, [
      words, make("b", {}, [figure]),
    ]);
    parts.legend.replaceChildren(
      key("state", "This model: ", `${bytes(stateBytes)} at any length`),
      key("kv", `${name[0].toUpperCase()}${name.slice(1)}, computed: `, kvNow),
      make("b", { class: "end" }, [
        `At 1 M tokens: ${bytes(stateBytes)} here, ${bytes(end)} with attention.`,
      ]),
    );
  }

  function drawRivals() {
    const names = values.rivals.map(([name]) => name);
    if (parts.names === names.join()) return;
    parts.names = names.join();
    const kept = read(RIVAL_KEY);
    parts.rival.replaceChildren(...names.map((name, i) =>
      make("option", { value: String(i), ...(name === kept ? { selected: "" } : {}) }, [name])));
  }

  const { recall: read, remember: keep } = window.page;

  // ---- the card --------------------------------------------------------------------------------------

  function make_parts(place) {
    const button = (id, label, title) =>
      make("button", { type: "button", id, title }, [label]);
    const made = {
      size: make("b", { class: "size" }, ["–"]),
      canvas: make("canvas", { class: "strip", "aria-hidden": "true" }),
      caption: make("p", { class: "caption" }),
      save: button("memory-save", "Save", "One file: this conversation and its memory"),
      open: button("memory-open", "Open", "A file that was saved here, or at another server with this model"),
      rail: make("div", { class: "rail", role: "group", "aria-label": "Restore points", hidden: "" }),
      points: make("p", { class: "caption points", hidden: "" }),
      rival: make("select", { id: "rival", "aria-label": "Compared with" }),
      picture: make("div"),
      legend: make("figcaption"),
      tiles: make("dl", { class: "tiles" }),
      note: make("p", { class: "note" }),
      held: make("dl", { class: "facts" }),
      facts: make("dl", { class: "facts" }),
    };
    made.chart = make("figure", { class: "chart" }, [
      make("div", { class: "chart-head" }, [
        make("h3", {}, ["Memory as it grows"]), made.rival,
      ]), made.picture, made.legend,
    ]);
    const file = make("input", { type: "file", id: "memory-file", hidden: "", accept: ".safetensors,.zip,.json,.jsonl" });
    made.open.addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      if (file.files[0]) window.memory.open(file.files[0]);
      file.value = "";
    });
    made.save.addEventListener("click", () => window.memory.save());
    made.rival.addEventListener("change", () => {
      keep(RIVAL_KEY, values.rivals[Number(made.rival.value)][0]);
      drawChart();
    });
    const details = make("details", { class: "more-figures" }, [
      make("summary", {}, ["What this server's memory holds"]), made.held, made.facts,
    ]);
    place.replaceChildren(
      make("section", { class: "card memory", "aria-label": "Memory" }, [
        make("h2", {}, ["Everything said so far"]),
        make("p", { class: "amount" }, [made.size, " bytes, always"]),
        made.canvas, made.caption,
        make("div", { class: "memory-tools" }, [made.save, made.open, file]),
        made.rail, made.points,
      ]),
      make("section", { class: "card", "aria-label": "Compared with attention" }, [made.chart, made.note]),
      make("section", { class: "card", "aria-label": "Figures" }, [made.tiles, details]),
    );
    return made;
  }

  function drawCard() {
    const { stateBytes, tokens } = values;
    parts.size.textContent = stateBytes ? whole(stateBytes) : "–";
    const isNew = values.strip !== undefined && values.strip !== strip;
    if (isNew) {
      window.strip.set(parts.canvas, values.strip, {}, window.page.isBusy() ? strip : null);
      strip = values.strip;
    }
    parts.canvas.classList.toggle("blank", !strip);
    parts.caption.textContent = tokens
      ? `${whole(tokens)} tokens are in it, from the first word on`
      : "Nothing is in it yet: it has this size from the first word on";
    parts.save.disabled = !tokens;
    parts.save.title = tokens ? "One file: this conversation and its memory" : "Nothing has been said yet";
    const line = document.querySelector("#memory-line");
    if (line) drawLine(line);
  }

  /** On a phone: the memory in one line. */
  function drawLine(line) {
    const { stateBytes, tokens, tiles } = values;
    const speed = tiles.find(([label]) => label === "Speed now")?.[1];
    const figures = ["always", tokens ? `${whole(tokens)} tokens` : "", speed?.includes("tok") ? speed : ""];
    const canvas = line.querySelector("canvas") ?? make("canvas", { "aria-hidden": "true" });
    window.strip.set(canvas, strip, { maxRows: 4, maxColumns: 32 });
    canvas.hidden = !strip;
    line.replaceChildren(canvas, make("b", {}, [stateBytes ? bytes(stateBytes) : "–"]),
      make("span", {}, [figures.filter(Boolean).join(" · ")]));
  }

  function drawTiles() {
    parts.tiles.replaceChildren(...values.tiles.map(([label, value, why], i) => {
      const tip = `why-${i}`;
      return make("div", { class: i ? "tile" : "tile accent", tabindex: "0", "aria-describedby": tip }, [
        make("dt", {}, [label]), make("dd", {}, [value]),
        make("dd", { class: "why", id: tip, role: "tooltip" }, [why]),
      ]);
    }));
  }

  const rowsOf = (pairs) => pairs.map(([name, value]) =>
    make("div", {}, [make("dt", {}, [name]), make("dd", {}, [value])]));

  function drawPanel(value, part) {
    if (!value || typeof value !== "object") return;
    values = value;
    if (!parts || !parts.canvas.isConnected || !part.element.contains(parts.canvas)) {
      parts = make_parts(part.element.querySelector(".panel"));
      strip = "";
      parts.canvas.dataset.strip = "";
    }
    drawRivals();
    drawCard();
    drawChart();
    drawTiles();
    parts.note.textContent = value.note.text;
    parts.note.classList.toggle("beyond", Boolean(value.note.isBeyond));
    parts.held.replaceChildren(...rowsOf(value.memory));
    parts.facts.replaceChildren(...rowsOf(value.facts));
  }

  /** One dot for each reply that one can go back to; what no state has read is read again. */
  function drawRail(messages) {
    if (!parts) return;
    const points = messages.filter((message) => message.role === "assistant" && message.tokens);
    const seen = points.length > 12 ? [...points.slice(0, 1), ...points.slice(-11)] : points;
    parts.rail.replaceChildren(...seen.map((message) => {
      const isNow = message === points[points.length - 1];
      const words = `${message.name ? `${message.name}: ` : ""}${whole(message.tokens)} tokens`;
      const title = isNow ? `Now: ${words}` : `Go back to ${words}`;
      const dot = make("button", {
        type: "button", title, "aria-label": title,
        class: `point${isNow ? " now" : ""}${message.name ? " named" : ""}`,
        ...(isNow ? { "aria-current": "true" } : {}),
      });
      dot.addEventListener("click", () => !isNow && window.conversation.goBack(message.id));
      return dot;
    }));
    parts.rail.hidden = points.length < 2;
    const each = values.stateBytes ? bytes(values.stateBytes) : "–";
    parts.points.hidden = parts.rail.hidden;
    parts.points.textContent = `${points.length} replies to go back to; a state that is kept for one takes ${each}`;
  }

  window.page.drawsWith("panel", drawPanel);
  window.memory = {
    drawRail,
    sizeText: () => (values?.stateBytes ? bytes(values.stateBytes) : ""),
    bytes,
    values: () => values,
    modelName: () => values?.facts.find(([name]) => name === "Model")?.[1] ?? "falcon-mamba",
  };
})();
