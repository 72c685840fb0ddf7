// What every page does besides being read: Airflow's colours, the viewer's time zone, news, and changes without a reload.
// A page works without any of it: links lead somewhere, forms answer with a page.
(() => {
  const root = document.documentElement;
  const said = document.getElementById("said");
  const parts = ["main", "bar-end"];

  const copyTheme = () => {
    try {
      const outer = window.parent.document.documentElement.classList;
      for (const mode of ["light", "dark"]) root.classList.toggle(mode, outer.contains(mode));
    } catch {
      // Not inside Airflow's frame: the system's colour mode holds.
    }
  };

  const styles = {
    clock: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
    minute: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
    day: { day: "numeric", month: "short", year: "numeric" },
  };
  const localTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      time.title = time.dateTime;
      time.textContent = moment.toLocaleString([], styles[time.dataset.style] || styles.minute);
    }
  };

  // ---- what the page cannot do now is told on top of it; what was read last stays below
  const notes = document.getElementById("notes");
  const words = { failure: "", since: null, isSilent: false };  // why and since when no look succeeds; no news for long
  let isLive = false;
  const tellLive = () => {
    const mark = document.querySelector("[data-live]");
    const isFresh = isLive && !words.failure;
    mark?.classList.toggle("poll", !isFresh);
    const word = mark?.querySelector("[data-live-word]");
    if (word) word.textContent = isFresh ? "Live," : "Read at";
  };

  const noteOf = (name) => {
    const note = document.getElementById(name).content.cloneNode(true);
    if (name === "note-failed") {
      note.querySelector("[data-why]").textContent = words.failure;
      note.querySelector("[data-since]").dateTime = words.since.toISOString();
      note.querySelector("[data-read-at]").replaceChildren(document.querySelector("[data-live] time").cloneNode(true));
    }
    return note;
  };

  const tellNotes = () => {
    tellLive();
    const name = words.failure ? "note-failed" : words.isSilent ? "note-polls" : "";
    if (notes.dataset.told === name + words.failure) return;  // said once, not at each look
    notes.dataset.told = name + words.failure;
    const hadFocus = notes.contains(document.activeElement);
    notes.replaceChildren(...(name ? [noteOf(name)] : []));
    if (hadFocus) (notes.querySelector("button") || document.getElementById("main")).focus({ preventScroll: true });
    localTimes();
  };

  const failed = (why) => {
    words.failure = why;
    words.since ??= new Date();
    tellNotes();
  };
  const succeeded = () => {
    [words.failure, words.since] = ["", null];
    tellNotes();
  };

  // ---- what takes longer than a moment says so; nothing goes away meanwhile
  let acts = 0;
  const working = async (pressed, act) => {
    acts += 1;
    const slow = setTimeout(() => {
      document.getElementById("main").setAttribute("aria-busy", "true");
      pressed?.setAttribute("aria-disabled", "true");
      said.textContent = "Working";
    }, 300);
    const done = await act();
    clearTimeout(slow);
    pressed?.removeAttribute("aria-disabled");
    acts -= 1;
    if (!acts) document.getElementById("main").removeAttribute("aria-busy");
    if (!acts && said.textContent === "Working") said.textContent = "";
    return done;
  };

  // Never throws: html is null where no page came.
  const ask = async (address, how = {}) => {
    const answer = await fetch(address, { credentials: "same-origin", ...how }).catch(() => null);
    const isPage = (answer?.headers.get("content-type") || "").startsWith("text/html");
    const html = isPage ? await answer.text().catch(() => null) : null;
    return { html, isGood: html !== null && answer.ok, status: answer?.status, url: answer?.url, isMoved: answer?.redirected };
  };

  const messageOf = ({ html, status }) => {
    const message = html && new DOMParser().parseFromString(html, "text/html").querySelector("[role=alert] b")?.textContent;
    return message || (status ? `The server answered ${status}.` : "The server does not answer.");
  };

  // ---- a page put in the place of this one, part by part
  let isPressed = false;  // a press that ends on another element than it began on is none
  for (const [name, is] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]])
    document.addEventListener(name, () => { isPressed = is; }, true);

  const isBusy = () => {
    const at = document.activeElement;
    return Boolean(isPressed || acts || document.querySelector("dialog[open], [data-dirty]") || at?.matches?.("main input, main select, main textarea"));
  };

  const place = () => location.pathname + location.search;  // without the part after #, which leads within a page
  let shown = place();

  // What a fresh page has in the place of an element: by its id, else by what it does, and says if several do that.
  const deedOf = (at) => [at.getAttribute("href"), at.dataset.open, at.name, at.value, at.form?.getAttribute("action")].join(" ").trim();
  const likeOf = (at, deed) => {
    if (at.id) return document.getElementById(at.id);
    const found = [...document.querySelectorAll(at.tagName)].filter((one) => deedOf(one) === deed);
    return found.find((one) => one.textContent === at.textContent) || (deed && found[0]);
  };

  const assetsOf = (page) => [...page.querySelectorAll("link[rel=stylesheet], script[src]")].map((e) => e.outerHTML).join();

  const put = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    if (assetsOf(fresh) !== assetsOf(document)) return location.reload();  // it was an error page, which has fewer
    const at = document.activeElement || document.body;
    const [main, deed] = [document.getElementById("main"), deedOf(at)];
    const caret = at.matches("input[type=text], input[type=search], textarea") ? [at.selectionStart, at.selectionEnd] : null;
    for (const id of parts) {
      const [now, next] = [document.getElementById(id), fresh.getElementById(id)];
      if (now && next && now.innerHTML !== next.innerHTML) now.replaceWith(document.adoptNode(next));
    }
    document.title = fresh.title;
    shown = place();
    if (!at.isConnected) {
      const again = likeOf(at, deed) || null;
      again?.focus({ preventScroll: true });
      if (caret) again?.setSelectionRange?.(...caret);
    }
    localTimes();
    succeeded();
    if (!main.isConnected) document.dispatchEvent(new CustomEvent("easeml:put"));  // else what scripts know still holds
  };

  // A look at this address. What somebody types or waits for meanwhile goes first; the look is then made up for.
  let [wanted, swaps, looks, newest] = [false, 0, 0, 0];
  const fetchAnew = async (pressed) => {
    wanted = !pressed && (document.hidden || isBusy());
    if (wanted) return;
    copyTheme();
    const [turn, at, look] = [swaps, location.href, ++looks];
    const found = await (pressed ? working(pressed, () => ask(at)) : ask(at));
    if (turn !== swaps || at !== location.href || look < newest) return;  // something newer is shown, or on its way
    newest = look;
    const isError = document.getElementById("wrong") !== null;  // an error page holds nothing that is worth keeping
    if (found.isMoved && new URL(found.url).pathname.startsWith(`${root.dataset.base}/`)) return;  // this page answered a form
    if (found.isMoved) return failed("The server leads away from here; log in again if it asks for that.");
    if (found.html === null || !(found.isGood || isError)) return failed(messageOf(found));
    if (!isBusy()) return put(found.html);
    wanted = true;
    succeeded();
  };

  // ---- news: a stream of events, else a look every few seconds
  const SILENCE_MS = 30_000;
  const seconds = Number(root.dataset.refresh);
  let [stream, silence] = [null, null];
  const hear = (isHeard) => {
    isLive = isHeard;
    if (isHeard) {
      clearTimeout(silence);
      [silence, words.isSilent] = [null, false];
    } else silence ??= setTimeout(() => { words.isSilent = true; tellNotes(); }, SILENCE_MS);
    tellNotes();
  };
  const listen = () => {
    if (document.hidden || (stream && stream.readyState !== EventSource.CLOSED)) return;
    stream = new EventSource(root.dataset.events);
    stream.addEventListener("listening", () => { hear(true); fetchAnew(); });
    stream.addEventListener("changed", () => fetchAnew());
    stream.onerror = () => {
      hear(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, SILENCE_MS);  // refused: the browser gives up
    };
  };
  if (seconds > 0) {
    setInterval(() => { if (!isLive || words.failure) fetchAnew(); }, seconds * 1000);
    setInterval(() => { if (wanted) fetchAnew(); }, 2000);
    hear(false);
    listen();
    // A browser opens six connections to a server: pages that nobody looks at leave them to those that are looked at.
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) { hear(false); return listen(); }
      stream?.close();
      clearTimeout(silence);
      [isLive, silence] = [false, null];
    });
    window.addEventListener("pagehide", () => stream?.close());
    window.addEventListener("pageshow", listen);
  }

  // ---- changes and filters without a reload: forms and links with data-swap
  const complain = (form, found) => {
    const fresh = new DOMParser().parseFromString(found.html || "", "text/html");
    const note = form.querySelector("[data-error]") || form.appendChild(document.createElement("p"));
    note.dataset.error = "";
    note.className = "note bad";
    note.setAttribute("role", "alert");
    const message = Object.assign(document.createElement("span"), { textContent: messageOf(found) });
    const mark = fresh.querySelector("[role=alert] svg") || document.createElement("span");  // the note has two columns
    note.replaceChildren(document.adoptNode(mark), message);
  };

  const send = async (form, button) => {
    const data = new FormData(form, button);
    const isGet = form.method === "get";
    const address = new URL(form.action, location.href);
    const how = { method: form.method.toUpperCase() };
    if (isGet) address.search = new URLSearchParams([...data].filter(([, value]) => value !== "")).toString();
    else how.body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
    const turn = ++swaps;
    form.setAttribute("aria-busy", "true");
    const found = await working(button, () => ask(address, how));
    form.removeAttribute("aria-busy");
    if (isGet && turn !== swaps) return;  // a later question is on its way
    if (!found.isGood) return complain(form, found);
    delete form.dataset.dirty;
    form.closest("dialog")?.close();
    const landed = isGet ? address.href : found.url;
    if (landed !== location.href) history.pushState({}, "", landed);
    put(found.html);
    if (form.dataset.said) said.textContent = form.dataset.said;
  };

  const follow = async (link) => {
    const turn = ++swaps;
    const found = await working(link, () => ask(link.href));
    if (turn !== swaps) return;
    if (!found.isGood) { location.href = link.href; return; }
    history.pushState({}, "", link.href);
    put(found.html);
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "dialog" || !form.matches("[data-swap]")) return;
    event.preventDefault();
    if (form.method === "post" && form.getAttribute("aria-busy") === "true") return;  // pressed twice
    send(form, event.submitter);
  });

  let typing;
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (form?.matches("[data-swap][data-typed]")) {
      clearTimeout(typing);
      typing = setTimeout(() => form.requestSubmit(), 250);
    } else if (form?.method === "post") form.dataset.dirty = "";
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
  });

  document.addEventListener("close", (event) => {  // what was typed into a dialog and given up holds no news back
    for (const form of event.target.querySelectorAll("form")) delete form.dataset.dirty;
  }, true);

  // ---- what stands open stays open when fresh parts come
  const open = new Set();
  document.addEventListener("toggle", (event) => {
    const panel = event.target;
    if (!panel.matches?.("details[id]") || !panel.isConnected) return;
    if (panel.open) open.add(panel.id);
    else open.delete(panel.id);
  }, true);
  document.addEventListener("easeml:put", () => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  });

  // ---- links, dialogs, copies
  const outwards = (path) => {
    // Airflow's frame forbids a link to leave it; the outer page's own history may be moved.
    window.parent.history.pushState({}, "", path);
    window.parent.dispatchEvent(new PopStateEvent("popstate"));
  };

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      said.textContent = "Copied";
    } catch {  // browsers keep the clipboard from pages without encryption
      getSelection().selectAllChildren(text);
      said.textContent = "Selected: now copy it by key";
    }
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow], a[data-swap], [data-again], [data-open], [data-close], [data-copy]");
    if (!link) return;
    if (link.matches("a[data-airflow]") && window.parent !== window) {
      event.preventDefault();
      outwards(link.getAttribute("href"));
    } else if (link.matches("a[data-swap]") && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
      event.preventDefault();
      follow(link);
    } else if (link.dataset.again !== undefined) fetchAnew(link);
    else if (link.dataset.open) document.getElementById(link.dataset.open)?.showModal();
    else if (link.dataset.close !== undefined) link.closest("dialog")?.close();
    else if (link.dataset.copy) copy(document.getElementById(link.dataset.copy));
  });
  window.addEventListener("popstate", () => { if (place() !== shown) location.reload(); });

  copyTheme();
  localTimes();
  document.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });  // what a task's link named
})();
