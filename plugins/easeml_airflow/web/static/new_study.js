// A new study: what is typed is checked by the server, and the parts that say so are replaced.
// Without a script the form has a button for that, and the page comes back as a whole.
(() => {
  let turn = 0;
  let typing;

  const check = async (form) => {
    const mine = ++turn;
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(form.dataset.check, { method: "POST", credentials: "same-origin", body }).catch(() => null);
    if (mine !== turn || !answer?.ok) return;  // a later one is on its way, or submitting will say what is wrong
    const html = await answer.text();
    if (mine !== turn) return;
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
    clearTimeout(typing);
    typing = setTimeout(() => check(form), 500);
  });
})();
