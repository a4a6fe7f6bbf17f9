/* The laboratory's frame: its sections as tabs of its own, each drawn when it is shown first.

   A section says `window.lab.add({ id, title, draw })`; `draw(place, facts)` fills its place once. The
   facts are what the server knows of its model (ui/view/laboratory.py). */
window.lab = (() => {
  const { make } = window.markdown;
  const MAX_ROWS = 300;
  const sections = [];
  let facts = null;
  let list = null; // the tabs

  async function fetchFacts() {
    const answer = await fetch("lab/facts", { cache: "no-store" });
    const told = await answer.json().catch(() => null);
    if (!answer.ok) throw new Error(told?.detail ?? `the server answered ${answer.status}`);
    return told;
  }

  function choose(id, { focuses = false } = {}) {
    for (const section of sections) {
      const isChosen = section.id === id;
      section.tab.ariaSelected = String(isChosen);
      section.tab.tabIndex = isChosen ? 0 : -1;
      section.place.hidden = !isChosen;
      if (isChosen && !section.isDrawn) {
        section.isDrawn = true;
        section.draw(section.place, facts);
      }
      if (isChosen && focuses) section.tab.focus();
    }
  }

  function onKey(event) {
    const at = sections.findIndex(({ tab }) => tab === event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: sections.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    choose(sections[(to + sections.length) % sections.length].id, { focuses: true });
  }

  /** A paragraph in its place, for what went wrong before anything could be drawn. */
  const trouble = (text) => make("p", { class: "lab-trouble", role: "alert" }, [text]);

  async function open(place) {
    if (list) return;
    try {
      facts = await fetchFacts();
    } catch (error) {
      place.replaceChildren(trouble(`The laboratory cannot be opened: ${error.message}.`));
      return;
    }
    for (const section of sections) {
      section.tab = make("button", {
        type: "button", role: "tab", id: `lab-tab-${section.id}`, "aria-controls": `lab-${section.id}`,
      }, [section.title]);
      section.tab.addEventListener("click", () => choose(section.id));
      section.place = make("div", {
        class: "lab-section", role: "tabpanel", id: `lab-${section.id}`,
        "aria-labelledby": `lab-tab-${section.id}`,
      });
    }
    list = make("div", { class: "lab-tabs", role: "tablist", "aria-label": "Experiments" },
      sections.map(({ tab }) => tab));
    list.addEventListener("keydown", onKey);
    place.replaceChildren(list, ...sections.map((section) => section.place));
    choose(sections[0].id);
  }

  // ---- parts of forms that sections share -------------------------------------------------------------

  function button(label, run, kind = "") {
    const made = make("button", { type: "button", class: `choice ${kind}` }, [label]);
    made.addEventListener("click", run);
    return made;
  }

  /** A field with its name above it and, if there is one, a hint below. */
  function field(label, input, hint = "") {
    return make("label", { class: "lab-field" }, [
      make("span", {}, [label]), input, ...(hint ? [make("small", {}, [hint])] : []),
    ]);
  }

  const numberInput = (id, value, { min, max, step = "1" }) =>
    make("input", { type: "number", id, value: String(value), min: String(min), max: String(max), step });

  /** The table behind a plot, made while it is open. Of thousands of rows it shows some, evenly; files
      have them all. */
  function tableBehind(title, columns, rowsNow) {
    const place = make("div", { class: "lab-table", tabindex: "0", role: "region", "aria-label": title });
    const behind = make("details", {}, [make("summary", {}, [title]), place]);
    const draw = () => {
      if (!behind.open) return;
      const head = make("tr", {}, columns.map((name) => make("th", { scope: "col" }, [name])));
      const all = rowsNow();
      const every = Math.ceil(all.length / MAX_ROWS);
      const shown = all.filter((_, i) => i % every === 0 || i === all.length - 1);
      const rows = shown.map((row) => make("tr", {}, row.map((cell) => make("td", {}, [String(cell)]))));
      const caption = every > 1 ? [make("caption", {}, [`Every ${every}th of ${all.length.toLocaleString("en")} rows; CSV and JSON have them all.`])] : [];
      place.replaceChildren(make("table", {}, [...caption, make("thead", {}, [head]), make("tbody", {}, rows)]));
    };
    behind.addEventListener("toggle", draw);
    return { element: behind, draw };
  }

  return {
    add: (section) => sections.push(section),
    open, button, field, numberInput, tableBehind,
  };
})();
