// A new study: what is typed is checked by the server, and the parts that say so are replaced.
// Without a script the form has a button for that, and the page comes back as a whole.
(() => {
  let turn = 0;
  let typing;

  // What a check said stands for what was typed before: until the next one it is pale, and a reader hears it is busy.
  const age = (isOld) => {
    for (const part of document.querySelectorAll("[data-part]")) part.setAttribute("aria-busy", isOld);
  };

  const check = async (form) => {
    const mine = ++turn;
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(form.dataset.check, { method: "POST", credentials: "same-origin", body }).catch(() => null);
    const html = answer?.ok ? await answer.text().catch(() => null) : null;
    if (mine !== turn) return;  // a later one is on its way
    age(false);
    if (html === null) return;  // submitting will say what is wrong
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const now of document.querySelectorAll("[data-part]")) {
      const next = fresh.getElementById(now.id);
      if (next && now.innerHTML !== next.innerHTML && !now.contains(document.activeElement)) now.replaceWith(document.adoptNode(next));
    }
    const program = document.getElementById("d-program");
    if (document.querySelector("#program-check .bad")) program?.setAttribute("aria-invalid", "true");
    else program?.removeAttribute("aria-invalid");
  };

  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form?.dataset.check || event.target.closest("[data-look]")) return;
    turn += 1;  // what is on its way was asked about an older text
    age(true);
    clearTimeout(typing);
    typing = setTimeout(() => check(form), 500);
  });
})();
