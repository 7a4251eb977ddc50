// The object on a turntable: drag it, press the arrow keys, or let it turn once by itself.
const stage = element.querySelector(".m-stage"), canvas = stage.querySelector("canvas"), pen = canvas.getContext("2d");
const badge = stage.querySelector(".m-badge");
const KINDS = { preview: "surface", views: "sharp views", clip: "clip" };
const TURN_SECONDS = 6, CLIP_SECONDS = 3, CLIP_TIMES = 3;
let frames = [], at = 0, held = null, spinning = 0, shown = null, drawn = null;

function draw() {
  if (!frames.length) return;
  const box = stage.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(box.width * ratio)), high = Math.max(1, Math.round(box.height * ratio));
  const count = frames.length, index = ((Math.round(at * count) % count) + count) % count, image = frames[index];
  if (image === drawn && canvas.width === wide && canvas.height === high) return;  // a spin asks sixty times a second
  drawn = image;
  if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
  const side = Math.min(wide, high) * 0.94;
  const tall = side * Math.min(1, image.height / image.width), broad = tall * image.width / image.height;
  pen.imageSmoothingQuality = "high";
  pen.clearRect(0, 0, wide, high);
  pen.drawImage(image, (wide - broad) / 2, (high - tall) / 2, broad, tall);
  stage.dataset.frame = index;
  window.dispatchEvent(new CustomEvent("mv3d-turn", { detail: at }));
}

function turn(by) { at = (((at + by) % 1) + 1) % 1; draw(); }

function spin() {
  const began = performance.now(), from = at, mine = ++spinning;
  const step = (now) => {
    if (mine !== spinning || !stage.isConnected) return;
    const share = Math.min(1, (now - began) / 1000 / TURN_SECONDS);
    at = (from + share * share * (3 - 2 * share)) % 1;
    draw();
    if (share < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// A clip has an end: it is played from its beginning, and again.
function play() {
  const began = performance.now(), mine = ++spinning, last = 1 - 1 / frames.length;
  const step = (now) => {
    if (mine !== spinning || !stage.isConnected) return;
    const times = (now - began) / 1000 / CLIP_SECONDS, isOver = times >= CLIP_TIMES;
    at = isOver ? last : last * (times % 1);
    draw();
    if (!isOver) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

async function show(value) {
  if (!value || !value.frames || !value.frames.length) { frames = []; shown = drawn = null; stage.dataset.state = "empty"; pen.clearRect(0, 0, canvas.width, canvas.height); return; }
  if (value === shown) return;
  shown = value;
  const loaded = await Promise.all(value.frames.map((url) => { const image = new Image(); image.src = url; return image.decode().then(() => image); }));
  if (shown !== value) return;
  const isFirst = !frames.length;
  frames = loaded;
  stage.dataset.state = value.kind;
  badge.textContent = KINDS[value.kind] || value.kind;
  draw();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  if (value.kind === "clip") play();
  else if (isFirst) spin();
}

stage.addEventListener("pointerdown", (event) => {
  if (!frames.length) return;
  spinning++;
  stage.classList.add("m-touched");
  stage.setPointerCapture(event.pointerId);
  held = { x: event.clientX, at };
});
stage.addEventListener("pointermove", (event) => {
  if (!held) return;
  // Features follow the hand: the camera goes the other way.
  at = held.at - (event.clientX - held.x) / (1.1 * stage.clientWidth);
  turn(0);
});
for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { held = null; });
stage.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
  if (!way || !frames.length) return;
  event.preventDefault();
  spinning++;
  turn(way / frames.length);
});
new ResizeObserver(draw).observe(stage);
watch("value", () => show(props.value));
show(props.value);
