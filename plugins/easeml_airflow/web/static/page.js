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

  // ---- a page put in the place of this one, part by part
  let isLive = false;
  const tellLive = () => {
    const mark = document.querySelector("[data-live]");
    mark?.classList.toggle("poll", !isLive);
    const word = mark?.querySelector("[data-live-word]");
    if (word) word.textContent = isLive ? "Live," : "Read at";
  };

  const isBusy = () => {
    const at = document.activeElement;
    return Boolean(document.querySelector("dialog[open], [data-dirty]") || at?.matches?.("main input, main select, main textarea"));
  };

  const place = () => location.pathname + location.search;  // without the part after #, which leads within a page
  let shown = place();

  const put = (html, { keepFocus }) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const at = document.activeElement;
    const focus = keepFocus && at?.id;
    const caret = at?.matches?.("input[type=text], input[type=search], textarea") ? [at.selectionStart, at.selectionEnd] : null;
    for (const id of parts) {
      const [now, next] = [document.getElementById(id), fresh.getElementById(id)];
      if (now && next && now.innerHTML !== next.innerHTML) now.replaceWith(document.adoptNode(next));
    }
    document.title = fresh.title;
    shown = place();
    if (focus) {
      const again = document.getElementById(focus);
      if (again !== at) again?.focus({ preventScroll: true });
      if (caret && again?.setSelectionRange && again !== at) again.setSelectionRange(...caret);
    }
    localTimes();
    tellLive();
    document.dispatchEvent(new CustomEvent("easeml:put"));
  };

  const isPage = (answer) => (answer?.headers.get("content-type") || "").startsWith("text/html");

  const fetchAnew = async () => {
    if (document.hidden || isBusy()) return;
    copyTheme();
    const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
    if (isPage(answer) && !answer.redirected && !isBusy()) put(await answer.text(), { keepFocus: true });
  };

  // ---- news: a stream of events, else a look every few seconds
  const seconds = Number(root.dataset.refresh);
  const poll = () => { if (seconds > 0 && !isLive) fetchAnew(); };
  if (seconds > 0) setInterval(poll, seconds * 1000);
  let wanted = false;
  if (window.EventSource && seconds > 0) {
    const stream = new EventSource(root.dataset.events);
    stream.onopen = () => { isLive = true; tellLive(); };
    stream.onerror = () => { isLive = false; tellLive(); };
    stream.addEventListener("listening", fetchAnew);
    stream.addEventListener("changed", () => { if (document.hidden || isBusy()) wanted = true; else fetchAnew(); });
    setInterval(() => { if (wanted && !document.hidden && !isBusy()) { wanted = false; fetchAnew(); } }, 2000);
    window.addEventListener("pagehide", () => stream.close());
  }

  // ---- changes and filters without a reload: forms and links with data-swap
  const complain = (form, html, status) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const message = fresh.querySelector("[role=alert] b")?.textContent || `The server answered ${status}.`;
    const note = form.querySelector("[data-error]") || form.appendChild(document.createElement("p"));
    note.dataset.error = "";
    note.className = "note bad";
    note.setAttribute("role", "alert");
    const words = Object.assign(document.createElement("span"), { textContent: message });
    const mark = fresh.querySelector("[role=alert] svg") || document.createElement("span");  // the note has two columns
    note.replaceChildren(document.adoptNode(mark), words);
  };

  const send = async (form, button) => {
    const data = new FormData(form, button);
    const isGet = form.method === "get";
    const address = new URL(form.action, location.href);
    const asked = { credentials: "same-origin", method: form.method.toUpperCase() };
    if (isGet) address.search = new URLSearchParams([...data].filter(([, value]) => value !== "")).toString();
    else asked.body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
    form.setAttribute("aria-busy", "true");
    const answer = await fetch(address, asked).catch(() => null);
    form.removeAttribute("aria-busy");
    if (!isPage(answer)) return complain(form, "", answer ? answer.status : "nothing");
    const html = await answer.text();
    if (!answer.ok) return complain(form, html, answer.status);
    delete form.dataset.dirty;
    form.closest("dialog")?.close();
    const landed = isGet ? address.href : answer.url;
    if (landed !== location.href) history.pushState({}, "", landed);
    put(html, { keepFocus: true });
    if (form.dataset.said) said.textContent = form.dataset.said;
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "dialog" || !form.matches("[data-swap]")) return;
    event.preventDefault();
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

  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-airflow], a[data-swap], [data-open], [data-close], [data-copy]");
    if (!link) return;
    if (link.matches("a[data-airflow]") && window.parent !== window) {
      event.preventDefault();
      outwards(link.getAttribute("href"));
    } else if (link.matches("a[data-swap]") && !event.metaKey && !event.ctrlKey) {
      event.preventDefault();
      const answer = await fetch(link.href, { credentials: "same-origin" }).catch(() => null);
      if (!isPage(answer) || !answer.ok) { location.href = link.href; return; }
      history.pushState({}, "", link.href);
      put(await answer.text(), { keepFocus: true });
    } else if (link.dataset.open) document.getElementById(link.dataset.open)?.showModal();
    else if (link.dataset.close !== undefined) link.closest("dialog")?.close();
    else if (link.dataset.copy) {
      await navigator.clipboard?.writeText(document.getElementById(link.dataset.copy).textContent);
      said.textContent = "Copied";
    }
  });
  window.addEventListener("popstate", () => { if (place() !== shown) location.reload(); });

  copyTheme();
  localTimes();
  document.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });  // what a task's link named
})();
