// A page that stands open: news, the fresh page that they bring, and how it takes the place of this one part by part.
(() => {
  const { copyTheme, localTimes, state, tell, isActing, working, ask, messageOf } = window.easeml;
  const root = document.documentElement;
  const parts = ["main", "bar-end"];

  // What the server sent of each part, before scripts wrote into it. A key of a request is another at each look.
  const textOf = (part) => part.innerHTML.replaceAll(/(name="request_key" value=")[^"]*/g, "$1");
  const served = new Map(parts.map((id) => [id, textOf(document.getElementById(id))]));

  const isSelecting = () => {
    const chosen = getSelection();
    return Boolean(chosen && !chosen.isCollapsed && chosen.containsNode(document.getElementById("main"), true));
  };
  const seen = ":not(dialog:not([open]) *)";  // words in a dialog that is shut are given up, or sent and done with
  const isBusy = () =>
    isActing() || isSelecting() || document.querySelector(`dialog[open], [data-dirty]${seen}`) !== null ||
    Boolean(document.activeElement?.matches("main input, main select, main textarea"));

  // ---- the address of what is shown: a step back to it, or one to a # within it, loads nothing anew
  const place = () => location.pathname + location.search;
  let shown = place();
  const stand = (address, isNew = true) => {
    history[isNew ? "pushState" : "replaceState"]({}, "", address);
    shown = place();
  };
  window.addEventListener("popstate", () => { if (place() !== shown) location.reload(); });

  // ---- what a fresh page has in the place of an element: by its id, else by what it does, and says if several do that
  const deedOf = (at) => [at.getAttribute("href"), at.dataset.open, at.name, at.value, at.form?.getAttribute("action")].join(" ").trim();
  const likeOf = (at) => {
    if (at.id) return document.getElementById(at.id);
    const deed = deedOf(at);
    const found = [...document.querySelectorAll(at.tagName)].filter((one) => deedOf(one) === deed);
    return found.find((one) => one.textContent === at.textContent) || (deed && found[0]) || null;
  };
  const isHidden = (field) => field.type === "hidden" && field.name !== "request_key";
  const fieldOf = (field) => field.name + (isHidden(field) ? field.value : "");
  const signOf = (form) => [form.action, ...[...form.elements].map(fieldOf)].join(" ");
  const formLike = (form) => {
    const sign = signOf(form);
    return [...document.forms].find((one) => signOf(one) === sign);
  };
  // What a form that changes something is about: which example is labelled, which set is retired.
  const subjectOf = (form) => {
    if (form.method === "post") return [form.action, ...[...form.elements].filter(isHidden).map(fieldOf)].join(" ");
    return "";  // what is typed to search or filter is meant for every view
  };

  // ---- what somebody did while an answer was on its way outlives the page that it brings
  // Each of these notes how something is, and returns what makes it so again.
  const retype = (old, now) => {
    const kind = old.type === "file" ? "files" : old.matches("[type=checkbox], [type=radio]") ? "checked" : "value";
    if (!now?.form || subjectOf(now.form) !== subjectOf(old.form)) return;
    const isOffered = !now.options || [...now.options].some((one) => one.value === old.value);
    if (!isOffered || now[kind] === old[kind]) return;
    now[kind] = old[kind];
    now.dispatchEvent(new Event("input", { bubbles: true }));  // what follows typing follows again
  };
  const keepWords = () => {
    const fields = document.querySelectorAll(`main form[data-dirty]${seen} :is(input:not([type=hidden]), select, textarea)`);
    return () => { for (const old of fields) if (!old.isConnected) retype(old, likeOf(old)); };
  };

  // What was sent and perhaps taken has its own key where it is sent again: else it would be done twice.
  const takeKey = (form, again) => {
    const [old, now] = [form, again].map((one) => one?.elements.request_key);
    if (old && now) now.value = old.value;
  };
  const keepKeys = () => {
    const sent = document.querySelectorAll("main form:is([aria-busy=true], :has([data-error]))");
    return () => { for (const form of sent) if (!form.isConnected) takeKey(form, formLike(form)); };
  };

  const keepComplaints = () => {
    const told = [...document.querySelectorAll("main form > [data-error]")].map((note) => [note, note.parentElement]);
    return () => {
      for (const [note, form] of told) {
        if (form.isConnected) continue;
        note.removeAttribute("role");  // it was read out when it came
        formLike(form)?.append(note);
      }
    };
  };

  const keepDialog = () => {
    const id = document.querySelector("main dialog[open]")?.id;
    return () => {
      const dialog = id && document.getElementById(id);
      if (!dialog || dialog.open) return;
      document.querySelector(`[data-open="${CSS.escape(id)}"]`)?.focus({ preventScroll: true });  // where closing leads back to
      dialog.showModal();
    };
  };

  const keepPlaces = () => {
    const find = () => document.querySelectorAll("main :is(.table-wrap, .code, .tabs, dialog)");
    const places = [...find()].map((at) => [at.scrollLeft, at.scrollTop]);
    return () => {
      const found = [...find()];
      if (found.length !== places.length) return;
      found.forEach((at, number) => { if (places[number].some(Boolean)) [at.scrollLeft, at.scrollTop] = places[number]; });
    };
  };

  const keepFocus = () => {
    const at = document.activeElement || document.body;
    const caret = at.matches("input[type=text], input[type=search], textarea") ? [at.selectionStart, at.selectionEnd] : null;
    return () => {
      if (at.isConnected) return;
      const again = likeOf(at);
      again?.focus({ preventScroll: true });
      if (caret) again?.setSelectionRange?.(...caret);
    };
  };

  // ---- a page put in the place of this one: of a look only what differs, of an act all, as what was sent is done with
  const assetsOf = (page) => [...page.querySelectorAll("link[rel=stylesheet], script[src]")].map((e) => e.outerHTML).join();

  const putParts = (fresh, isLook) => {
    for (const id of parts) {
      const [now, next] = [document.getElementById(id), fresh.getElementById(id)];
      if (!now || !next) continue;
      const text = textOf(next);
      if (isLook && served.get(id) === text) continue;
      served.set(id, text);
      now.replaceWith(document.adoptNode(next));
    }
  };

  const put = (html, isLook = false) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    if (assetsOf(fresh) !== assetsOf(document)) return location.reload();  // it was an error page, which has fewer
    const main = document.getElementById("main");
    const kept = [keepWords, keepKeys, keepComplaints, keepDialog, keepPlaces, keepFocus].map((keep) => keep());
    putParts(fresh, isLook);
    document.title = fresh.title;
    shown = place();
    localTimes();
    tell({ failure: "" });
    if (!main.isConnected) document.dispatchEvent(new CustomEvent("easeml:put"));  // else what scripts know still holds
    for (const giveBack of kept) giveBack();
  };

  // ---- a look at this address: what somebody types or waits for meanwhile goes first; the look is then made up for
  // Each act begins a turn: an answer that was asked for in an earlier one is too old to be shown.
  let [turn, looks, newest, isWanted] = [0, 0, 0, false];
  const begin = () => ++turn;
  const isLast = (mine) => mine === turn;
  const want = (is) => {
    isWanted = is;
    tell({ isHeld: is });
  };

  const look = async (pressed) => {
    want(!pressed && (document.hidden || isBusy()));
    if (isWanted) return;
    copyTheme();
    const [mine, at, number] = [turn, location.href, ++looks];
    const found = await (pressed ? working(pressed, () => ask(at)) : ask(at));
    if (number < newest) return;  // something newer is shown
    if (!isLast(mine) || at !== location.href) return want(true);  // something else is, or is on its way
    newest = number;
    const isError = document.getElementById("wrong") !== null;  // an error page holds nothing that is worth keeping
    if (found.isMoved && new URL(found.url).pathname.startsWith(`${root.dataset.base}/`)) return;  // this page answered a form
    if (found.isMoved) return tell({ failure: "The server leads away from here; log in again if it asks for that." });
    if (found.html === null || !(found.isGood || isError)) return tell({ failure: messageOf(found) });
    if (!isBusy()) return put(found.html, true);
    want(true);
    tell({ failure: "" });
  };

  // What an act has changed, where its own page was not shown, is looked at once nothing newer is on its way.
  const catchUp = () => {
    served.clear();
    look();
  };

  // ---- news: a stream of events, else a look every few seconds
  const SILENCE_MS = 30_000;
  const seconds = Number(root.dataset.refresh);
  let [stream, silence] = [null, null];
  const hear = (isLive) => {
    if (isLive) {
      clearTimeout(silence);
      silence = null;
    } else silence ??= setTimeout(() => tell({ isSilent: true }), SILENCE_MS);
    tell(isLive ? { isLive, isSilent: false } : { isLive });
  };
  const listen = () => {
    if (document.hidden || (stream && stream.readyState !== EventSource.CLOSED)) return;
    stream = new EventSource(root.dataset.events);
    stream.addEventListener("listening", () => { hear(true); look(); });
    stream.addEventListener("changed", () => look());
    stream.onerror = () => {
      hear(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, SILENCE_MS);  // refused: the browser gives up
    };
  };
  const turnTo = () => {
    // A browser opens six connections to a server: pages that nobody looks at leave them to those that are looked at.
    if (!document.hidden) { hear(false); return listen(); }
    stream?.close();
    clearTimeout(silence);
    [state.isLive, silence] = [false, null];
  };
  setInterval(() => { if (isWanted) look(); }, 2000);
  if (seconds > 0) {
    setInterval(() => { if (!state.isLive || state.failure) look(); }, seconds * 1000);
    hear(false);
    listen();
    document.addEventListener("visibilitychange", turnTo);
    window.addEventListener("pagehide", () => stream?.close());
    window.addEventListener("pageshow", listen);
  }

  Object.assign(window.easeml, { stand, formLike, takeKey, put, begin, isLast, look, catchUp });
  copyTheme();
  localTimes();
  document.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });  // what a task's link named
})();
