// Pictures to begin with.
element.addEventListener("click", (event) => {
  const card = event.target.closest("button");
  if (card) trigger("taken", { name: card.dataset.name });
});
