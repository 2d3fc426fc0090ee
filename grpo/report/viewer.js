// Enlarges pictures. Those that belong together (before and after, the same prompt under every arm) are shown side by side.
(() => {
  const dialog = document.getElementById("viewer");
  if (!dialog || !dialog.showModal) return;
  const stage = dialog.querySelector(".stage"), place = dialog.querySelector(".place");
  const buttons = [...document.querySelectorAll("button.zoom")];
  const sets = [], number = new Map();
  for (const button of buttons) {
    const key = button.dataset.set;
    const last = sets.findIndex(set => key && set[0].dataset.set === key);
    if (last < 0) sets.push([button]); else sets[last].push(button);
    number.set(button, last < 0 ? sets.length - 1 : last);
  }
  let current = 0;
  const fit = () => {
    const pictures = [...stage.querySelectorAll("img")];
    if (!pictures.length) return;
    const width = stage.clientWidth, height = stage.clientHeight;
    const [wide, high] = ["naturalWidth", "naturalHeight"].map(key => Math.max(...pictures.map(img => img[key])));
    let scale = 0;
    for (let columns = 1; columns <= pictures.length; columns++) {
      const rows = Math.ceil(pictures.length / columns);
      scale = Math.max(scale, Math.min((width / columns - 16) / wide, (height / rows - 70) / high));
    }
    const sharp = pictures.every(img => img.classList.contains("pixelated"));
    if (sharp && scale > 1) scale = Math.floor(scale);
    scale = Math.max(scale, 48 / wide);
    for (const img of pictures) img.style.width = img.naturalWidth * scale + "px";
  };
  const show = index => {
    current = (index + sets.length) % sets.length;
    const prompts = sets[current].map(button => button.closest(".card")?.querySelector(".prompt")?.textContent ?? "");
    const shared = new Set(prompts).size === 1;
    stage.replaceChildren(...sets[current].map((button, index) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const picture = button.querySelector("img").cloneNode();
      picture.removeAttribute("width");
      caption.textContent = shared ? picture.alt : `${prompts[index]}, ${picture.alt}`;
      figure.append(picture, caption);
      return figure;
    }));
    place.textContent = `${shared ? prompts[0] : ""} (${current + 1} of ${sets.length})`;
    fit();
  };
  for (const button of buttons) button.addEventListener("click", () => {
    dialog.showModal();
    show(number.get(button));
  });
  dialog.querySelector(".previous").addEventListener("click", () => show(current - 1));
  dialog.querySelector(".next").addEventListener("click", () => show(current + 1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog || event.target === stage) dialog.close(); });
  dialog.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); show(current + step); }
  });
  addEventListener("resize", () => { if (dialog.open) fit(); });
  const closed = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = closed(); for (const part of opened) part.open = true; });
  addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
})();
