/* Books: a document is sent and counted, read once, and then any conversation may stand on it
   (ui/events/books.py). One line above the conversation says how things are. */
(() => {
  const { make } = window.markdown;
  const POLL_MS = 700;
  let file = null; // it waits for its ticket
  let counted = null; // a document that waits for a word
  let reading = null;
  let stands = null;
  let books = null; // while the list is open
  let row = []; // ids of books that are to be read one after the other

  const number = (value) => Math.round(value).toLocaleString("en");
  const ask = (op, more = {}) => window.page.tell("book", "look", { op, ...more });
  const stand = (id) => { window.page.tell("book", "act", { id }); setTimeout(() => ask("now"), 400); };

  function button(label, run, kind = "") {
    const made = make("button", { type: "button", class: kind }, [label]);
    made.addEventListener("click", run);
    return made;
  }

  function timeLeft(seconds) {
    if (seconds === null || !Number.isFinite(seconds)) return "";
    return seconds < 90 ? `, about ${Math.max(1, Math.round(seconds))} s left` : `, about ${Math.round(seconds / 60)} min left`;
  }

  function closeList() {
    books = null;
    row = [];
  }

  function named(label, name, run) {
    const made = button(label, run);
    made.setAttribute("aria-label", `${label}: ${name}`);
    return made;
  }

  /** A book in the list, and what can be done with it. */
  function itemOf({ id, name, read, usable, own, shared, lasting }) {
    const place = row.indexOf(id);
    const begin = button(`${name}: ${number(read)} tokens`, () => { closeList(); stand(id); });
    begin.disabled = !usable;
    const tools = [];
    if (usable && place < 0) tools.push(named("Then", name, () => { row.push(id); draw(); }));
    if (own && lasting && usable) tools.push(named(shared ? "Take back" : "Share", name, () => ask("share", { id, on: !shared })));
    if (own) tools.push(named("Delete", name, () => ask("delete", { id })));
    const notes = [own ? shared && "everybody here may begin from it" : "shared, read only", place >= 0 && `number ${place + 1} below`];
    return make("li", {}, [begin, ...tools, make("small", {}, [notes.filter(Boolean).join(", ")])]);
  }

  /** The books that were chosen, in the order in which they will be read. */
  function rowOf() {
    const move = (at, to) => { row.splice(to, 0, ...row.splice(at, 1)); draw(); };
    const chosen = row.map((id) => books.find((book) => book.id === id)).filter(Boolean);
    const items = chosen.map(({ name }, at) => make("li", {}, [
      name,
      ...(at ? [named("↑", `${name}, earlier`, () => move(at, at - 1))] : []),
      ...(at < chosen.length - 1 ? [named("↓", `${name}, later`, () => move(at, at + 1))] : []),
      named("×", `${name}, out of the row`, () => { row.splice(at, 1); draw(); }),
    ]));
    const count = button("Count them", () => ask("row", { ids: chosen.map(({ id }) => id) }));
    count.disabled = chosen.length < 2;
    return [
      make("span", {}, ["Read one after the other, in this order; another order is another state:"]),
      make("ol", {}, items),
      count,
    ];
  }

  function lineOf() {
    if (books) {
      return [
        make("span", {}, [books.length ? "Begin from a book that was read:" : "No document was read here yet."]),
        make("ul", {}, books.map(itemOf)),
        ...(row.length ? rowOf() : []),
        button(books.length ? "Read another document" : "Choose a document", () => { closeList(); draw(); choose(); }, "primary"),
        button("Close", () => { closeList(); draw(); }),
      ];
    }
    if (counted) {
      const { name, pages, tokens, known, warning, note } = counted;
      return [
        make("span", {}, [make("b", {}, [name]), ` · ${number(pages)} pages · ${number(tokens)} tokens`
          + (known ? `, ${number(known)} of them read already` : "")]),
        ...[warning, note].filter(Boolean).map((text) => make("small", {}, [text])),
        button("Read", () => { counted = null; ask("read"); }, "primary"),
        button("Cancel", () => { counted = null; draw(); }),
      ];
    }
    if (reading) {
      const { id, name, read, tokens, pages, rate, left_s: left } = reading;
      const page = Math.max(1, Math.ceil((pages * read) / Math.max(1, tokens)));
      return [
        make("progress", { max: String(tokens), value: String(read), "aria-label": `Reading ${name}` }),
        make("span", {}, [`Reading ${name}: ${number(read)} of ${number(tokens)} tokens, page ${page} of ${pages}`
          + (rate ? `, ${number(rate)} tokens/s` : "") + timeLeft(left)]),
        button("Stop", () => ask("stop", { id })),
      ];
    }
    return stands ? [make("span", {}, [`Stands on ${stands.name}: ${number(stands.tokens)} tokens, read once`])] : [];
  }

  function draw() {
    const element = window.page.element("book");
    const place = element?.querySelector(".book");
    if (!place) return;
    const line = lineOf();
    place.replaceChildren(...line);
    place.hidden = !line.length;
  }

  async function send(ticket) {
    const sent = file;
    file = null;
    if (!sent) return;
    window.page.note(`Opening ${sent.name} …`);
    const answer = await fetch(`memory/${ticket}/document?name=${encodeURIComponent(sent.name)}`, { method: "PUT", body: sent });
    const told = await answer.json().catch(() => null);
    if (!answer.ok) throw new Error(told?.detail ?? `the server answered ${answer.status}`);
    window.page.note("");
    counted = told;
    draw();
  }

  function follow(book) {
    if (book.status === "reading") {
      reading = book;
      setTimeout(() => ask("poll", { id: book.id }), POLL_MS);
      return;
    }
    const wasReading = reading !== null || book.status === "ready";
    reading = null;
    if (book.usable && wasReading) stand(book.id);
    else window.page.note(book.error || `${book.name} was not read.`);
  }

  window.page.drawsWith("book", async (value) => {
    if (!value?.op) return draw();
    try {
      if (value.problem) throw new Error(value.problem);
      stands = value.stands;
      if (value.books) books = value.books;
      if (value.counted) { closeList(); counted = value.counted; }
      if (value.ticket) await send(value.ticket);
      if (value.book) follow(value.book);
    } catch (error) {
      reading = null;
      const text = error.message;
      window.page.note(text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : "."));
    }
    return draw();
  });

  function open(chosen) {
    file = chosen;
    ask("ticket");
  }

  function choose() {
    const input = Object.assign(document.createElement("input"), { type: "file" });
    input.addEventListener("change", () => input.files[0] && open(input.files[0]));
    input.click();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#read-document")) ask("list");
    // Another conversation may be shown by then.
    if (event.target.closest?.("#clear, #sidebar .conversation, #sidebar button")) setTimeout(() => ask("now"), 600);
  });
  window.page.whenReady(() => ask("now"));
  window.books = { open };
})();
