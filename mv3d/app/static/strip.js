// The visitor's finished orbits side by side; they turn with the one on the stage.
const root = element.querySelector(".m-strip");
let cards = [];

function turn(event) {
  if (!root.isConnected) return;
  for (const { image, frames } of cards) image.src = frames[((Math.round(event.detail * frames.length) % frames.length) + frames.length) % frames.length];
}

function show(value) {
  root.replaceChildren();
  cards = (value || []).map((one) => {
    const card = document.createElement("button");
    card.type = "button";
    card.dataset.id = one.id;
    card.setAttribute("aria-pressed", String(one.is_chosen));
    card.title = one.name;
    const image = new Image();
    image.alt = one.name;
    image.src = one.frames[0];
    const words = document.createElement("span");
    words.textContent = one.seed === null ? one.name : `seed ${one.seed}`;
    card.append(image, words);
    root.append(card);
    return { image, frames: one.frames };
  });
}

root.addEventListener("click", (event) => {
  const card = event.target.closest("button");
  if (card) trigger("chosen", { id: card.dataset.id });
});
window.addEventListener("mv3d-turn", turn);
watch("value", () => show(props.value));
show(props.value);
