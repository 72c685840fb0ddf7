// Hours and days on the lanes, in the viewer's zone; the slider of the price.
(() => {
  const styles = { hour: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, weekday: { weekday: "short", day: "numeric" } };
  const tell = () => {
    for (const time of document.querySelectorAll("time[data-axis]"))
      time.textContent = new Date(time.dateTime).toLocaleString([], styles[time.dataset.axis]);
  };
  document.addEventListener("easeml:put", tell);
  tell();

  // The price that is tried out: its number follows the slider, the page follows once it is let go.
  const slider = (event) => (event.target.form?.matches("[data-on-change]") ? event.target : null);
  document.addEventListener("input", (event) => {
    const at = slider(event);
    if (!at) return;
    at.style.setProperty("--v", `${(100 * at.value) / at.max}%`);
    at.form.querySelector("output").textContent = String(Number(Number(at.value).toPrecision(3)));
  });
  document.addEventListener("change", (event) => slider(event)?.form.requestSubmit());
})();
