/* The list of conversations: by day, with a search; a drawer where the window is narrow. The server
   keeps them (ui/events/sidebar.py). Each conversation has an address of its own, so two tabs can show
   two of them. */
(() => {
  const { make } = window.markdown;
  const OPEN_KEY = "falcon-mamba-sidebar";
  const SEARCH_AFTER_MS = 160;
  const UNDO_MS = 10_000;
  const GOING_KEY = "falcon-mamba-going"; // what is deleted, and since when that cannot be undone

  let value = null; // what is shown
  let changing = 0; // the number of the last change that was asked for
  let parts = null;
  let searching = null;
  const going = new Map(); // timers of what is being deleted, until it is too late to undo

  const isNarrow = () => matchMedia("(max-width: 1099px)").matches;
  const isOpen = () => window.page.isMarked("sidebar");

  function show(isShown) {
    window.page.mark("sidebar", isShown);
    document.querySelector("#sidebar-toggle")?.setAttribute("aria-expanded", String(isShown));
    if (!isNarrow()) {
      window.page.remember(OPEN_KEY, isShown ? "open" : "closed");
    }
    if (isShown) look();
  }

  function toggle() {
    show(!isOpen());
    if (isOpen()) parts?.search.focus();
    else window.page.visible("#composer textarea")?.focus();
  }

  const ask = (event, asked) =>
    window.page.ask("sidebar", event, { ...asked, words: parts?.search.value ?? "" });
  const look = () => ask("look", {});
  const change = (op, id, text = "") => { changing = ask("amend", { op, id, text }); };

  // ---- entries --------------------------------------------------------------------------------------

  function dayOf(seconds) {
    const day = new Date(seconds * 1000);
    const today = new Date();
    const days = Math.round((new Date(today.toDateString()) - new Date(day.toDateString())) / 86_400_000);
    if (days <= 0) return "Today";
    if (days === 1) return "Yesterday";
    if (days < 7) return "This week";
    return day.toLocaleDateString("en", { month: "long", year: "numeric" });
  }

  function groups(items) {
    const found = new Map();
    for (const item of items) {
      const name = item.archived ? "Archived" : item.pinned ? "Pinned" : item.folder ?? dayOf(item.at);
      found.set(name, [...(found.get(name) ?? []), item]);
    }
    return [...found].sort(([one], [other]) =>
      (one === "Archived") - (other === "Archived") || (other === "Pinned") - (one === "Pinned"));
  }

  function entry(item) {
    const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
    const facts = item.tokens ? [count(item.tokens, "token"), window.memory?.sizeText()]
      : [count(item.messages, "message"), "not read yet"];
    const opener = make("button", {
      type: "button", class: "conversation", dir: "auto", "data-for": item.id,
      ...(item.id === value.current ? { "aria-current": "page" } : {}),
    }, [
      make("span", { class: "title" }, [item.title]),
      make("small", {}, [item.excerpt ?? facts.filter(Boolean).join(" · "), item.busy ? " · writing" : ""]),
    ]);
    opener.addEventListener("click", () => {
      window.page.tell("sidebar", "act", { id: item.id });
      if (isNarrow()) show(false);
      window.page.visible("#composer textarea")?.focus();
    });
    const more = make("button", {
      type: "button", class: "more-of", "aria-haspopup": "menu", "aria-label": `More for ${item.title}`,
      "data-for": item.id,
    }, ["⋯"]);
    more.addEventListener("click", () => openMenu(item));
    return make("li", { class: item.busy ? "busy" : "" }, [opener, more]);
  }

  /** The button of a menu: another one after each drawing of the list. */
  const openerOf = (id) => document.querySelector(`#sidebar .more-of[data-for="${CSS.escape(id)}"]`);

  function openMenu(item) {
    const was = document.querySelector("#sidebar .menu");
    was?.remove();
    if (was?.dataset.of === item.id) return;
    const choice = (label, run) => {
      const made = make("button", { type: "button", role: "menuitem", tabindex: "-1" }, [label]);
      made.addEventListener("click", () => { menu.remove(); openerOf(item.id)?.focus(); run(); });
      return made;
    };
    const menu = make("div", { class: "menu", role: "menu", "aria-label": `For ${item.title}`, "data-of": item.id }, [
      choice("Rename…", () => {
        window.dialogs.ask("A title for this conversation", item.title)
          .then((title) => title?.trim() && change("rename", item.id, title));
      }),
      choice(item.pinned ? "Unpin" : "Pin", () => change(item.pinned ? "unpin" : "pin", item.id)),
      choice("Move to a folder…", () => {
        window.dialogs.ask("The folder's name; empty for none", item.folder ?? "")
          .then((folder) => folder !== null && change("move", item.id, folder));
      }),
      choice(item.archived ? "Put back" : "Archive",
        () => change(item.archived ? "unarchive" : "archive", item.id)),
      choice("Delete", () => remove(item)),
    ]);
    menu.addEventListener("keydown", (event) => {
      const items = [...menu.children];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) {
        items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
      } else if (["Escape", "Tab"].includes(event.key)) { menu.remove(); openerOf(item.id)?.focus(); }
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    openerOf(item.id).after(menu);
    menu.firstChild.focus();
  }

  // A page that is closed meanwhile deletes nothing any more: the next one does.
  function leftToDelete() {
    try { return new Map(Object.entries(JSON.parse(window.page.recall(GOING_KEY)) ?? {})); } catch { return new Map(); }
  }

  const keepLeft = (left) =>
    window.page.remember(GOING_KEY, left.size ? JSON.stringify(Object.fromEntries(left)) : null);

  function letGo(id, at) {
    const isKept = keepLeft(leftToDelete().set(id, at));
    const end = () => {
      const left = leftToDelete();
      const isWanted = left.delete(id) || !isKept; // another tab may have brought it back
      keepLeft(left);
      going.delete(id);
      if (isWanted) change("delete", id);
      else look();
    };
    going.set(id, setTimeout(end, Math.max(0, at - Date.now())));
  }

  function bringBack(id) {
    clearTimeout(going.get(id));
    going.delete(id);
    const left = leftToDelete();
    left.delete(id);
    keepLeft(left);
    drawList();
  }

  /** It is gone from the list at once, and from the disk when it is too late to undo. */
  function remove(item) {
    letGo(item.id, Date.now() + UNDO_MS);
    drawList();
    if (item.id === value.current) window.page.visible("#clear")?.click();
    window.page.note(`“${item.title.slice(0, 40)}” is deleted.`, {
      label: "Undo",
      run: () => bringBack(item.id),
    });
  }

  // ---- the whole ------------------------------------------------------------------------------------

  function begin(place) {
    const anew = make("button", { type: "button", class: "anew" }, ["New conversation",
      make("kbd", {}, ["Ctrl ⇧ O"])]);
    anew.addEventListener("click", () => {
      window.page.visible("#clear")?.click();
      if (isNarrow()) show(false);
    });
    const search = make("input", {
      type: "search", placeholder: "Search", "aria-label": "Search the conversations",
    });
    search.addEventListener("input", () => {
      clearTimeout(searching);
      searching = setTimeout(look, SEARCH_AFTER_MS);
    });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && search.value) {
        event.stopPropagation();
        search.value = "";
        look();
      } else if (event.key === "ArrowDown") {
        event.preventDefault();
        list.querySelector(".conversation")?.focus();
      }
    });
    const list = make("div", { class: "list" });
    list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || !event.target.matches(".conversation")) return;
      const all = [...list.querySelectorAll(".conversation")];
      event.preventDefault();
      (all[all.indexOf(event.target) + step] ?? search).focus();
    });
    const notice = make("p", { class: "kept-notice" });
    const keys = make("button", { type: "button", id: "show-keys", "aria-label": "Keys" }, ["?"]);
    const all = make("button", { type: "button", class: "delete-all" }, ["Delete everything…"]);
    all.addEventListener("click", () => window.everything.ask(value?.isKept));
    const way = document.querySelector("meta[name=sign-out]")?.content;
    const out = way ? [make("a", { class: "sign-out", href: way }, ["Sign out"])] : [];
    place.replaceChildren(anew, search, list, make("div", { class: "foot" }, [notice, all, ...out, keys]));
    return { search, list, notice, place };
  }

  function drawList() {
    const items = value.items.filter((item) => !going.has(item.id));
    const menu = document.querySelector("#sidebar .menu");
    const focused = parts.list.contains(document.activeElement) ? document.activeElement : null;
    parts.list.replaceChildren(...groups(items).flatMap(([name, those]) => [
      make("h2", {}, [name]), make("ul", {}, those.map(entry)),
    ]));
    if (!items.length) {
      const words = value.words ? "Nothing is found." : value.isKept
        ? "What is said will be listed here." : "This page has one conversation.";
      parts.list.replaceChildren(make("p", { class: "kept-notice" }, [words]));
    }
    // An open menu stays open when the list changes under it, and focus stays where it was.
    if (menu) openerOf(menu.dataset.of)?.after(menu);
    if (!focused) return;
    const same = `.${focused.classList[0]}[data-for="${CSS.escape(focused.dataset.for ?? "")}"]`;
    (menu?.contains(focused) ? focused : parts.list.querySelector(same))?.focus();
  }

  window.page.drawsWith("sidebar", (shown, { element }) => {
    const place = element.querySelector("nav");
    if (!parts || parts.place !== place) {
      parts = begin(place);
      openAtFirst();
    }
    if (!shown || typeof shown !== "object") return;
    if (shown.isGone) return window.everything.finish();
    if (!value) leftToDelete().forEach((at, id) => letGo(id, Number(at) || 0));
    value = shown;
    document.querySelector("#sidebar-toggle")?.setAttribute("aria-expanded", String(isOpen()));
    parts.notice.textContent = value.problem ?? value.notice ?? "";
    drawList();
    keepAddress();
    if (value.untitled && !window.page.isBusy()) change("title", value.current);
  }, (number) => number === changing && look()); // the list that is shown may be from before it

  /** The address of the conversation that is shown, for reloads and for other tabs. */
  function keepAddress() {
    const address = new URL(location.href);
    const isShown = value.isKept && window.conversation.messages().length > 0;
    if (isShown) address.searchParams.set("c", value.current);
    else address.searchParams.delete("c");
    if (address.href !== location.href) history.replaceState(history.state, "", address);
  }

  // The list is asked for when the page opens, and when what it shows has changed.
  let seen = null;
  setInterval(() => {
    const phase = document.querySelector("#status .status-line")?.dataset.phase;
    if (phase === undefined || phase === "starting") return;
    const isWriting = phase === "decoding";
    const messages = window.conversation.messages();
    if (messages === seen?.messages && isWriting === seen.isWriting) return;
    const before = seen;
    seen = { messages, isWriting, ids: messages.map((message) => message.id).join() };
    if (seen.ids !== before?.ids || isWriting !== before.isWriting) look();
  }, 400);

  // What was there before "New conversation" is in the list, or can be called back for a while.
  document.addEventListener("click", (event) => {
    const hasWords = window.conversation.messages().length > 0;
    if (!event.target.closest("#clear") || !value || !hasWords) return;
    const { current, isKept } = value;
    if (isKept && isOpen()) return;
    window.page.note(isKept ? "The conversation before is in the list." : "A new one. The one before is not kept here.", {
      label: "Undo", run: () => window.page.tell("sidebar", "act", { id: current }),
    });
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("#sidebar-toggle")) toggle();
    else if (isNarrow() && isOpen() && !event.target.closest("#sidebar")) show(false);
    if (!event.target.closest("#sidebar .menu, .more-of")) document.querySelector("#sidebar .menu")?.remove();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isNarrow() && isOpen()) toggle();
  });

  const openAtFirst = () => {
    window.page.mark("sidebar", !isNarrow() && window.page.recall(OPEN_KEY) !== "closed");
  };
  window.sidebar = {
    toggle,
    search() {
      show(true);
      parts?.search.focus();
      parts?.search.select();
    },
  };
})();
