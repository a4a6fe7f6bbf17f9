/* Draws the conversation: its messages, their tools, their branches, and the reply being written.

   The server sends the messages as values (ui/view/messages.py) and a growing reply as its text alone.
   Rows that have not changed are left as they are. */
(() => {
  const { make } = window.markdown;
  const { Growing } = window.messages;
  const { Stretches, neighbour } = window.stretches;
  const FOLDED_LINES = 24;
  const FOLDED_CHARS = 2_400;
  const NEAR_END_PX = 120;
  const STAMP = { maxRows: 4, maxColumns: 32 };
  const GROWING = "growing";

  const rows = new Map(); // by the message's id
  const rowOf = new WeakMap(); // by its element
  let list = null; // the element that holds them
  let stretches = null; // which put them there
  let shown = []; // the messages, as the server sent them
  let current = null; // the id of the row whose tools the keyboard reaches
  let follows = true; // whether the end stays in sight

  const button = (name, label, onClick, attributes = {}) => {
    const made = make("button", { type: "button", class: name, ...attributes }, [label]);
    made.addEventListener("click", onClick);
    return made;
  };
  const act = (op, id, text = "") => window.page.tell("transcript", "act", { op, id, text });
  const compare = (op, id) => window.page.tell("comparison", "act", { op, id });
  const refusal = () => (window.page.isBusy() ? "Not while a reply is being written" : null);

  // ---- rows -------------------------------------------------------------------------------------

  /** Messages are values of values and short lists. */
  function isSame(one, other) {
    const names = Object.keys(one);
    return names.length === Object.keys(other).length
      && names.every((name) => one[name] === other[name] || String(one[name]) === String(other[name]));
  }

  /** A message's row. A reply is its plain words, without tools, until it is built. */
  class Row {
    constructor(message) {
      this.element = make("article", { class: "message-row", tabindex: "-1" });
      this.bubble = make("div", { class: "message" });
      this.under = make("div", { class: "under" });
      this.element.append(this.bubble, this.under);
      this.element.addEventListener("focusin", () => setCurrent(this.message.id));
      this.isBuilt = false;
      rowOf.set(this.element, this);
      this.draw(message);
    }

    build() {
      if (this.isBuilt) return this;
      this.isBuilt = true;
      if (this.message.role === "assistant") this.say(this.message);
      this.drawUnder(this.message);
      return this;
    }

    draw(message) {
      const before = this.message;
      this.message = message;
      if (before && isSame(before, message)) return;
      const isUser = message.role === "user";
      const pair = message.pair ? " pair" : "";
      this.element.className = `message-row ${isUser ? "user-row" : "bot-row"} ${message.role}${pair}`;
      const model = message.pair ? "The model, one of two replies" : "The model";
      this.element.setAttribute("aria-label", isUser ? "You" : model);
      this.element.dataset.id = message.id ?? "";
      this.bubble.dataset.testid = isUser ? "user" : "bot";
      if (!before || before.text !== message.text || before.role !== message.role) this.say(message);
      if (this.isBuilt) this.drawUnder(message);
    }

    say({ role, text, title }) {
      if (role === "notice") {
        this.words = make("div", { class: "said", dir: "auto" }, [text]);
        this.bubble.replaceChildren(make("b", {}, [`⚠ ${title}`]), this.words);
      } else if (role === "user") {
        this.words = make("div", { class: "said", dir: "auto" }, [text]);
        this.bubble.replaceChildren(this.words, ...this.fold(text));
      } else if (!this.isBuilt) {
        this.words = make("div", { class: "said", dir: "auto" }, [text]);
        this.bubble.replaceChildren(this.words);
      } else {
        if (!this.growing) {
          this.words = make("div", { class: "said prose", dir: "auto" });
          this.bubble.replaceChildren(this.words);
          this.growing = new Growing(this.words);
        }
        this.grow(text);
      }
    }

    grow(text) {
      try {
        this.growing.draw(text);
      } catch (error) { // never seen; the words are worth more than their form
        console.error(error);
        this.words.replaceChildren(text);
      }
    }

    /** A long paste shows its beginning. */
    fold(text) {
      const numLines = text.split("\n", FOLDED_LINES + 1).length;
      if (text.length <= FOLDED_CHARS && numLines <= FOLDED_LINES) return [];
      const size = `${text.length.toLocaleString("en")} characters`;
      const toggle = button("fold", `Show all · ${size}`, () => {
        const isOpen = toggle.getAttribute("aria-expanded") === "true";
        toggle.setAttribute("aria-expanded", String(!isOpen));
        this.words.classList.toggle("folded", isOpen);
        toggle.textContent = isOpen ? `Show all · ${size}` : "Show less";
      }, { "aria-expanded": "false" });
      this.words.classList.add("folded");
      return [toggle];
    }

    drawUnder(message) {
      if (message.role === "notice") return this.under.replaceChildren();
      const parts = [];
      if (message.branches && !message.pair) parts.push(this.forks(message));
      if (message.strip) parts.push(this.stamp(message));
      if (message.name) parts.push(make("b", { class: "moment", dir: "auto" }, [message.name]));
      if (message.line) parts.push(this.line(message));
      parts.push(message.pair ? this.choice(message) : this.tools(message));
      if (message.later) {
        const words = `${message.later} way${message.later > 1 ? "s" : ""} on from here ›`;
        parts.push(button("later", words, () => act("show", message.next)));
      }
      this.under.replaceChildren(...parts);
      if (message.id !== current) setTabStops(this.element, "-1");
      return undefined;
    }

    line({ line, details, at }) {
      const time = at ? new Date(at * 1000).toLocaleTimeString([], { timeStyle: "short" }) : "";
      const more = [time, details].filter(Boolean).join(" · ");
      return make("span", { class: "line", title: more }, [line, make("span", { class: "more" }, [
        more ? ` · ${more}` : "",
      ])]);
    }

    forks({ branches, place, id }) {
      const count = branches.length;
      const step = (label, to, name) => button("step", label, () => act("show", branches[to - 1]), {
        "aria-label": name, ...(to < 1 || to > count ? { disabled: "" } : {}),
      });
      return make("span", { class: "forks", role: "group", "aria-label": "Branches", "data-of": id }, [
        step("‹", place - 1, "Branch before"),
        make("span", {}, [`${place}/${count}`]),
        step("›", place + 1, "Next branch"),
        button("step changes", "◫", () => compare("show", id), {
          "aria-label": "Side by side", title: "Side by side with its neighbour",
        }),
      ]);
    }

    stamp(message) {
      const stamp = button("stamp", "", () => openMenu(stamp, message), {
        "aria-haspopup": "menu", "aria-expanded": "false",
        "aria-label": "The memory after this reply",
        title: "The memory after this reply: go back, branch, name, save",
      });
      stamp.append(window.strip.make(message.strip, STAMP));
      return stamp;
    }

    /** Of one of two replies side by side: which of them goes on. */
    choice(message) {
      const goOn = () => {
        compare("pick", message.id);
        if (matchMedia("(pointer: fine)").matches) window.page.visible("#composer textarea")?.focus();
      };
      return make("span", { class: "tools" }, [
        message.pair === "picked" ? make("span", { class: "tool picked" }, ["The next message follows this"])
          : button("tool changes go-on", "Go on with this", goOn, { title: "The other one stays as a branch" }),
        button("tool", "Copy", (event) => window.page.copyFrom(event.target, message.text), { "aria-label": "Copy message" }),
      ]);
    }

    tools(message) {
      const isUser = message.role === "user";
      const again = isUser ? "Answer again" : "Try again";
      const made = [
        button("tool", "Copy", (event) => window.page.copyFrom(event.target, message.text), {
          "aria-label": "Copy message", title: "Copy as Markdown",
        }),
        button("tool changes", "Edit", () => edit(this), { "aria-label": "Edit" }),
        button("tool changes", again, () => act("retry", message.id), {
          title: "The reply that is there stays as a branch",
        }),
      ];
      if (message.short) {
        made.push(button("tool changes", "Continue", () => act("continue", message.id), {
          title: "Go on where the reply was cut",
        }));
      }
      if (!isUser) {
        const tokens = message.tokens ? ` (${message.tokens.toLocaleString("en")} tokens)` : "";
        made.push(button("tool changes how-sure", "How sure?", () => window.probabilities.ask(message.id), { title: `The probability of each word; the conversation is read once more for it${tokens}` }));
      }
      made.push(button("tool changes", "Delete", () => remove(message), {
        title: "With everything that follows; it can be undone",
      }));
      return make("span", { class: "tools" }, made);
    }
  }

  const lastReply = () => shown.filter((message) => message.role === "assistant").pop();

  function remove(message) {
    act("delete", message.id);
    window.page.note("Deleted, with what followed.", {
      label: "Undo", run: () => act("restore", message.id),
    });
  }

  // ---- editing ----------------------------------------------------------------------------------

  function edit(row) {
    const { message } = row;
    const field = make("textarea", {
      "aria-label": message.role === "user" ? "Edit your message" : "Edit the model's words",
      dir: "auto",
    });
    field.value = message.text;
    const leave = () => {
      row.bubble.classList.remove("edited");
      row.growing = null;
      row.say(message);
      row.under.hidden = false;
      row.under.querySelector("[aria-label=Edit]")?.focus();
    };
    const submit = () => {
      const text = field.value;
      leave();
      if (text.trim() && text !== message.text) act("edit", message.id, text);
      if (message.role === "user") window.page.visible("#composer textarea")?.focus();
    };
    const sends = message.role === "user" ? "Send" : "Save";
    row.bubble.classList.add("edited");
    row.bubble.replaceChildren(field, make("div", { class: "edit-tools" }, [
      button("tool", "Cancel", leave, { "aria-label": "Cancel" }),
      button("tool go", sends, submit, { "aria-label": "Submit" }),
    ]));
    row.under.hidden = true;
    const fit = () => {
      field.style.height = "auto";
      field.style.height = `${Math.min(field.scrollHeight + 4, innerHeight * 0.6)}px`;
    };
    field.addEventListener("input", fit);
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") { event.stopPropagation(); leave(); }
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); submit(); }
    });
    fit();
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  // ---- the stamp's menu -------------------------------------------------------------------------

  let menu = null;

  function closeMenu() {
    if (!menu) return;
    menu.opener.setAttribute("aria-expanded", "false");
    menu.element.remove();
    if (menu.hadFocus()) menu.opener.focus();
    menu = null;
  }

  function openMenu(opener, message) {
    const wasOpen = menu?.opener === opener;
    closeMenu();
    if (wasOpen) return;
    const at = shown.findIndex((one) => one.id === message.id);
    const isLast = at === shown.length - 1;
    const before = shown.slice(0, at).filter((earlier) => earlier.strip).pop();
    const item = (label, hint, run, problem = null) => {
      const made = make("button", {
        type: "button", role: "menuitem", tabindex: "-1",
        ...(problem ? { "aria-disabled": "true", title: problem } : {}),
      }, [make("span", {}, [label]), make("small", {}, [problem ?? hint])]);
      made.addEventListener("click", () => {
        if (problem) return;
        closeMenu();
        run();
      });
      return made;
    };
    const busy = refusal();
    const element = make("div", { class: "menu", role: "menu", "aria-label": "This memory" }, [
      item("Go back here", "0 tokens read", () => act("back", message.id),
        busy ?? (isLast ? "The conversation is here" : null)),
      item("Branch from here", "what followed is kept", () => act("branch", message.id), busy),
      item(message.name ? "Rename this moment…" : "Name this moment…", "", () => {
        window.dialogs.ask("A name for this moment", message.name ?? "")
          .then((name) => name !== null && act("name", message.id, name));
      }, busy),
      item("Save this memory", window.memory?.sizeText() ?? "", () => window.memory?.save(message.id), busy),
      item("What changed since the turn before", "", () => showChange(message, before),
        before ? null : "This is the first"),
    ]);
    element.addEventListener("keydown", (event) => {
      const items = [...element.children];
      const place = items.indexOf(document.activeElement);
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (move) items[(place + move + items.length) % items.length].focus();
      if (event.key === "Home") items[0].focus();
      if (event.key === "End") items[items.length - 1].focus();
      if (["Escape", "Tab"].includes(event.key)) closeMenu();
      if (move || ["Home", "End", "Escape"].includes(event.key)) {
        event.preventDefault();
        event.stopPropagation();
      }
    });
    menu = { opener, element, hadFocus: () => !document.activeElement
      || document.activeElement === document.body || element.contains(document.activeElement) };
    opener.setAttribute("aria-expanded", "true");
    opener.after(element);
    element.firstChild.focus();
    element.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("click", (event) => {
    if (menu && !menu.element.contains(event.target) && !menu.opener.contains(event.target)) {
      closeMenu();
    }
  });

  function showChange(message, before) {
    const row = rows.get(message.id);
    const canvas = make("canvas", { "aria-hidden": "true" });
    const share = window.strip.drawChange(canvas, message.strip, before.strip);
    const words = share === null ? "These two cannot be compared."
      : `${Math.round(100 * share)} % of the memory's cells moved with this turn; the size did not.`;
    const close = button("tool", "Close", () => { shownChange.remove(); row.element.focus(); });
    const shownChange = make("div", { class: "change", role: "note" }, [
      canvas, make("span", {}, [words]), close,
    ]);
    row.element.querySelector(".change")?.remove();
    row.element.append(shownChange);
    close.focus();
  }

  // ---- the whole ---------------------------------------------------------------------------------

  const setTabStops = (row, tabindex) => {
    for (const each of row.querySelectorAll("button, a, [tabindex]:not(article)")) {
      each.setAttribute("tabindex", tabindex);
    }
  };

  /** The keyboard reaches the tools of one row at a time: a long chat has few tab stops. */
  function setCurrent(id) {
    if (id === current) return;
    if (rows.has(current)) setTabStops(rows.get(current).element, "-1");
    current = id;
    if (rows.has(id)) setTabStops(rows.get(id).build().element, "0");
  }

  function place(ids) {
    const wanted = new Set(ids);
    for (const [id, row] of rows) {
      if (!wanted.has(id)) { row.element.remove(); rows.delete(id); }
    }
    stretches.place(ids.map((id) => rows.get(id).element));
  }

  const buildAll = (elements) => elements.forEach((element) => rowOf.get(element).build());

  /** The row of the growing reply becomes that of the message it has grown to. */
  function adopt(message) {
    const grown = rows.get(GROWING);
    if (!grown || rows.has(message.id) || message.role !== "assistant") return;
    rows.delete(GROWING);
    rows.set(message.id, grown);
  }

  function drawMessages(value, part) {
    if (list !== part.element.querySelector(".rows")) begin(part);
    const before = shown;
    shown = Array.isArray(value) ? value : [];
    const keyOf = (message, i) => message.id ?? `${message.role} ${i}`;
    const ids = shown.map(keyOf);
    if (shown.length) adopt(shown[shown.length - 1]);
    shown.forEach((message, i) => {
      const known = rows.get(ids[i]);
      if (known) known.draw(message);
      else rows.set(ids[i], new Row(message));
    });
    if (rows.has(GROWING)) ids.push(GROWING);
    place(ids);
    list.parentElement.classList.toggle("is-empty", ids.length === 0);
    const own = shown[shown.length - 1];
    const isOwn = own?.role === "user" && before[before.length - 1]?.id !== own.id;
    if (isOwn) follows = true;
    setCurrent(ids[ids.length - 1]);
    follow();
    window.memory?.drawRail?.(shown);
    window.systemCost?.check();
  }

  function drawGrowing(text) {
    if (!list) return;
    if (!text) {
      rows.get(GROWING)?.element.remove();
      rows.delete(GROWING);
      return;
    }
    const row = rows.get(GROWING);
    if (row) {
      row.message.text = text;
      row.grow(text);
    } else {
      const made = new Row({ role: "assistant", text, pair: shown[shown.length - 1]?.pair });
      made.build().under.replaceChildren();
      rows.set(GROWING, made);
      stretches.append(made.element);
      list.parentElement.classList.remove("is-empty");
    }
    follow();
  }

  // What grew below the window's end is followed, unless somebody has scrolled up to read.
  const scroller = () => list?.closest(".scroll");

  function follow() {
    const place = scroller();
    if (!place) return;
    if (follows) place.scrollTop = place.scrollHeight;
    showWayDown();
  }

  function showWayDown() {
    const place = scroller();
    const away = place.scrollHeight - place.scrollTop - place.clientHeight;
    const down = place.parentElement.querySelector(".down");
    if (down) down.hidden = away < NEAR_END_PX;
  }

  function begin(part) {
    rows.clear();
    list = part.element.querySelector(".rows");
    const place = scroller();
    stretches = new Stretches(list, place, buildAll);
    place.addEventListener("scroll", () => {
      follows = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_END_PX;
      showWayDown();
    }, { passive: true });
    const sizes = new ResizeObserver(() => follow());
    sizes.observe(list);
    sizes.observe(place);
    part.element.querySelector(".down")?.addEventListener("click", () => {
      follows = true;
      follow();
    });
    part.element.addEventListener("keydown", walk);
    part.element.addEventListener("click", (event) => {
      const demo = event.target.closest(".demo");
      if (demo) window.demos.begin(demo);
      const example = event.target.closest(".example");
      if (example) window.page.send(example.dataset.text);
    });
  }

  /** Arrows walk from message to message; with Alt, from branch to branch. */
  function walk(event) {
    if (event.target.matches("textarea, input") || event.defaultPrevented) return;
    const row = event.target.closest("article");
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.altKey && side) {
      const message = row ? shown.find((one) => one.id === row.dataset.id) : null;
      switchBranch(side, message);
      event.preventDefault();
      return;
    }
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!row || !step || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = neighbour(row, step);
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  /** To the neighbouring branch of this message, or of the last fork that is shown. */
  function switchBranch(side, message = null) {
    const forked = message?.branches ? message
      : shown.filter((one) => one.branches).pop();
    const to = forked?.branches[forked.place - 1 + side];
    const problem = refusal();
    if (problem) window.page.note(problem);
    else if (to !== undefined) act("show", to);
  }

  window.page.drawsWith("transcript", drawMessages);
  window.page.drawsWith("growing", drawGrowing);
  window.conversation = {
    switchBranch,
    editLast() {
      const last = shown.filter((message) => message.role === "user").pop();
      if (last && !refusal()) edit(rows.get(last.id).build());
    },
    async copyLast() {
      const last = lastReply();
      if (!last) return;
      const isCopied = await window.page.copy(last.text);
      window.page.note(isCopied ? "The last reply is copied." : "This browser does not let the page copy.");
    },
    asMarkdown: () => shown.filter((message) => message.id)
      .map(({ role, text }) => `${role}: ${text}`).join("\n\n"),
    messages: () => shown,
    sayInstead: (at, text) => act("edit", shown[at]?.id, text),
    act,
    row: (id) => rows.get(id)?.build(),
    goBack: (id) => act("back", id),
  };
})();
