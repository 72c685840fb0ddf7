// Changes and filters without a reload: forms and links with data-swap; and dialogs, details, copies.
(() => {
  const { tell, released, working, ask, messageOf, stand, formLike, takeKey, put, begin, isLast, look, catchUp } = window.easeml;
  const said = document.getElementById("said");

  const complain = (form, found) => {
    if (!form || form.matches("dialog:not([open]) *")) return tell({ failure: messageOf(found) });  // what asked is gone or shut
    const fresh = new DOMParser().parseFromString(found.html || "", "text/html");
    const note = form.querySelector("[data-error]") || form.appendChild(document.createElement("p"));
    note.dataset.error = "";
    note.className = "note bad";
    note.setAttribute("role", "alert");
    const message = Object.assign(document.createElement("span"), { textContent: messageOf(found) });
    const mark = fresh.querySelector("[role=alert] svg") || document.createElement("span");  // the note has two columns
    note.replaceChildren(document.adoptNode(mark), message);
  };

  const questionOf = (form, button) => {
    const [data, address] = [new FormData(form, button), new URL(form.action, location.href)];
    if (form.method === "get") {
      address.search = new URLSearchParams([...data].filter(([, value]) => value !== "")).toString();
      return [address.href, {}];
    }
    return [address.href, { method: "POST", body: form.enctype === "multipart/form-data" ? data : new URLSearchParams(data) }];
  };

  // Pressed again it is the same question, but a key that has asked for something else is refused at each press.
  const keepOrRenew = (sent, form, message) => {
    takeKey(sent, form);
    const key = form?.elements.request_key;
    if (!key || !message.endsWith("use a new key")) return;
    key.value = `${key.value.split("+")[0]}+${Date.now()}`;
    form.querySelector("[data-error] > :last-child")?.append(". It has one now: press again if this is meant as well.");
  };

  const send = async (sent, button) => {
    const isGet = sent.method === "get";
    const [address, how] = questionOf(sent, button);
    const [turn, wasDirty] = [begin(), sent.dataset.dirty !== undefined];
    delete sent.dataset.dirty;  // what is typed from now on is newer than what is sent
    sent.setAttribute("aria-busy", "true");
    const found = await working(button, () => ask(address, how));
    sent.removeAttribute("aria-busy");
    if (isGet && !isLast(turn)) return;  // a later question is on its way
    const form = sent.isConnected ? sent : formLike(sent);
    if (!found.isGood) {
      if (form && wasDirty && !isGet) form.dataset.dirty = "";
      complain(form, found);
      return keepOrRenew(sent, form, messageOf(found));
    }
    form?.querySelector("[data-error]")?.remove();
    form?.closest("dialog")?.close();
    if (isLast(turn) || !found.isMoved) {
      const landed = isGet ? address : found.url;
      if (landed !== location.href) stand(landed);
      put(found.html);
    } else catchUp();  // somebody has gone on to another page meanwhile, and is not taken back
    if (sent.dataset.said) said.textContent = sent.dataset.said;
  };

  const follow = async (link) => {
    const turn = begin();
    const found = await working(link, () => ask(link.href));
    if (!isLast(turn)) return;
    if (!found.isGood) { location.href = link.href; return; }
    stand(link.href);
    put(found.html);
  };

  // ---- what is typed or moved is asked once it rests, and is let go; what is on its way then answers an older question
  let typing;
  const forget = () => {
    clearTimeout(typing);
    typing = null;
  };
  const type = (form) => {
    begin();
    form.dataset.dirty = "";  // until it is asked
    forget();
    const mine = typing = setTimeout(async () => {
      await released();
      if (typing === mine) form.requestSubmit();
    }, 250);
  };

  const numberOf = (value) => value.toLocaleString("en", value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
  const slide = (slider) => {
    slider.style.setProperty("--v", `${(100 * (slider.value - slider.min)) / (slider.max - slider.min)}%`);
    slider.form.querySelector(`output[for="${slider.id}"]`).textContent = numberOf(Number(slider.value));
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "dialog" || !form.matches("[data-swap]")) return;
    event.preventDefault();
    if (form.method === "post" && form.getAttribute("aria-busy") === "true") return;  // pressed twice
    if (form.matches("[data-typed]")) forget();
    send(form, event.submitter);
  });

  document.addEventListener("input", ({ target }) => {
    const form = target.form;
    if (form?.matches("[data-swap][data-typed]")) {
      if (target.type === "range") slide(target);
      type(form);
    } else if (form?.method === "post") form.dataset.dirty = "";
  });
  document.addEventListener("change", ({ target }) => {
    if (target.matches("select[data-submit]")) target.form.requestSubmit();
  });

  document.addEventListener("close", (event) => {  // what was typed into a dialog and given up holds no news back
    for (const form of event.target.querySelectorAll("form")) {
      delete form.dataset.dirty;
      form.querySelector("[data-error]")?.remove();
    }
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
    const link = event.target.closest("a[data-airflow], a[data-swap], button[data-again], [data-open], [data-close], [data-copy]");
    if (!link) return;
    if (link.matches("a[data-airflow]") && window.parent !== window) {
      event.preventDefault();
      outwards(link.getAttribute("href"));
    } else if (link.matches("a[data-swap]") && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
      event.preventDefault();
      follow(link);
    } else if (link.dataset.again !== undefined) look(link);
    else if (link.dataset.open) document.getElementById(link.dataset.open)?.showModal();
    else if (link.dataset.close !== undefined) link.closest("dialog")?.close();
    else if (link.dataset.copy) copy(document.getElementById(link.dataset.copy));
  });
})();
