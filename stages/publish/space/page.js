document.addEventListener("click", (event) => {
  const plot = event.target.closest(".plot");
  if (!plot) return;
  const audio = plot.closest(".clip").querySelector("audio"), box = plot.getBoundingClientRect();
  const start = event.target.dataset.start ?? ((event.clientX - box.left) / box.width) * plot.dataset.seconds;
  audio.currentTime = Number(start);
  audio.play();
});
for (const name of ["loadedmetadata", "timeupdate", "seeked", "play"]) document.addEventListener(name, (event) => {
  const clip = event.target.closest(".clip"), now = event.target.currentTime;
  if (!clip) return;
  if (name === "play") for (const other of document.querySelectorAll(".clip audio"))
    if (other !== event.target) other.pause();
  const plot = clip.querySelector(".plot");
  plot.querySelector(".head").style.left = `${(100 * now) / plot.dataset.seconds}%`;
  for (const window of plot.querySelectorAll("button"))
    window.classList.toggle("playing", now > 0 && window.dataset.start <= now && now < window.dataset.end);
}, true);
