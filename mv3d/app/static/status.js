// What is being done, how far it is, how long it will take, and the way to stop it; or what is wrong.
const root = element.querySelector(".m-status");
const find = (what) => root.querySelector(what);

function show(value) {
  const { state, text, share, left } = Object.assign({ state: "idle", text: "", share: 0, left: "" }, value || {});
  root.dataset.state = state;
  find(".m-text").textContent = text;
  find(".m-left").textContent = left;
  find(".m-bar i").style.width = `${Math.round(100 * share)}%`;
}

find(".m-cancel").addEventListener("click", () => trigger("cancelled"));
watch("value", () => show(props.value));
show(props.value);
