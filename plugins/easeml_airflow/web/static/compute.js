// Hours and days on the lanes, in the viewer's zone.
(() => {
  const styles = { hour: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, weekday: { weekday: "short", day: "numeric" } };
  const tell = () => {
    for (const time of document.querySelectorAll("time[data-axis]"))
      time.textContent = new Date(time.dateTime).toLocaleString([], styles[time.dataset.axis]);
  };
  document.addEventListener("easeml:put", tell);
  tell();
})();
