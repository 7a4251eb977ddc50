// The picture: dropped, pasted, photographed or chosen; its cut-out, which a brush corrects.
const root = element.querySelector(".m-picture");
const find = (what) => root.querySelector(what);
const canvas = find("canvas"), pen = canvas.getContext("2d");
const mask = document.createElement("canvas"), maskPen = mask.getContext("2d", { willReadFrequently: true });
const layer = document.createElement("canvas"), layerPen = layer.getContext("2d");
const video = find(".m-video"), cursor = find(".m-cursor");
let picture = null, undo = [], tool = null, stroke = null, stream = null, shown = null;

const setState = (state) => { root.dataset.state = state; };
const isBrushed = () => undo.length > 0;

async function give(file) {
  if (!file) return;
  root.classList.add("m-busy");
  try {
    const { path } = await upload(file);
    trigger("picked", { path, name: file.name || "pasted.png" });
  } catch (error) {
    trigger("picked", { path: "", name: file.name || "the picture" });
  } finally { root.classList.remove("m-busy"); }
}

// -------------------------------------------------------------------------------------------------
// What is shown.

function load(url) {
  return new Promise((done, fail) => { const image = new Image(); image.onload = () => done(image); image.onerror = fail; image.src = url; });
}

async function show(value) {
  if (!value || !value.picture) { shown = null; if (root.dataset.state !== "camera") setState("empty"); return; }
  if (value === shown) return;
  shown = value;
  const [colours, object] = await Promise.all([load(value.picture), load(value.object)]);
  picture = colours;
  for (const each of [canvas, mask, layer]) { each.width = colours.width; each.height = colours.height; }
  // The object's grey becomes the mask's alpha.
  maskPen.drawImage(object, 0, 0, mask.width, mask.height);
  const pixels = maskPen.getImageData(0, 0, mask.width, mask.height);
  for (let k = 0; k < pixels.data.length; k += 4) {
    pixels.data[k + 3] = pixels.data[k];
    pixels.data[k] = pixels.data[k + 1] = pixels.data[k + 2] = 255;
  }
  maskPen.putImageData(pixels, 0, 0);
  undo = [];
  choose(null);
  draw();
  setState("shown");
}

function draw() {
  pen.globalCompositeOperation = "source-over";
  pen.clearRect(0, 0, canvas.width, canvas.height);
  layerPen.globalCompositeOperation = "copy";
  layerPen.drawImage(mask, 0, 0);
  layerPen.globalCompositeOperation = "source-in";
  layerPen.drawImage(picture, 0, 0);
  pen.globalAlpha = tool ? 0.35 : 0.12;
  pen.drawImage(picture, 0, 0);
  pen.globalAlpha = 1;
  pen.drawImage(layer, 0, 0);
  root.classList.toggle("m-brushed", isBrushed());
}

// -------------------------------------------------------------------------------------------------
// The brush.

function choose(next) {
  tool = tool === next ? null : next;
  for (const name of ["add", "erase"]) find(`[data-do=${name}]`).setAttribute("aria-pressed", String(tool === name));
  root.classList.toggle("m-brushing", tool !== null);
  if (picture) draw();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, radius: find(".m-size").value / 2 * scale };
}

function paint(from, to) {
  maskPen.globalCompositeOperation = tool === "add" ? "source-over" : "destination-out";
  maskPen.strokeStyle = "#fff";
  maskPen.lineCap = "round";
  maskPen.lineWidth = 2 * to.radius;
  maskPen.beginPath();
  maskPen.moveTo(from.x, from.y);
  maskPen.lineTo(to.x + 0.01, to.y);
  maskPen.stroke();
  draw();
}

canvas.addEventListener("pointerdown", (event) => {
  if (!tool) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  undo.push(maskPen.getImageData(0, 0, mask.width, mask.height));
  if (undo.length > 12) undo.splice(1, 1);
  stroke = place(event);
  paint(stroke, stroke);
});
canvas.addEventListener("pointermove", (event) => {
  const box = canvas.getBoundingClientRect(), size = find(".m-size").value;
  Object.assign(cursor.style, { left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px`, width: `${size}px`, height: `${size}px` });
  if (!stroke) return;
  const here = place(event);
  paint(stroke, here);
  stroke = here;
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { stroke = null; });

function apply() {
  // White where the object is, on black.
  layerPen.globalCompositeOperation = "source-over";
  layerPen.fillStyle = "#000";
  layerPen.fillRect(0, 0, layer.width, layer.height);
  layerPen.drawImage(mask, 0, 0);
  const url = layer.toDataURL("image/png");
  undo = [];
  choose(null);
  draw();
  trigger("brushed", { mask: url });
}

// -------------------------------------------------------------------------------------------------
// Where pictures come from.

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {  // none, or not allowed: phones have a camera of their own behind the file chooser
    find(".m-file").setAttribute("capture", "environment");
    find(".m-file").click();
    return;
  }
  video.srcObject = stream;
  await video.play();
  setState("camera");
}

function closeCamera() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  setState(shown ? "shown" : "empty");
}

function shoot() {
  const still = document.createElement("canvas");
  still.width = video.videoWidth;
  still.height = video.videoHeight;
  still.getContext("2d").drawImage(video, 0, 0);
  closeCamera();
  still.toBlob((blob) => give(new File([blob], "photo.png", { type: "image/png" })), "image/png");
}

const DO = {
  camera: openCamera, shoot, stop: closeCamera, apply,
  add: () => choose("add"), erase: () => choose("erase"),
  undo: () => { const last = undo.pop(); if (last) { maskPen.putImageData(last, 0, 0); draw(); } },
  mask: () => find(".m-maskfile").click(),
  new: () => find(".m-file").click(),
};
root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("m-drop")) { find(".m-file").removeAttribute("capture"); find(".m-file").click(); }
  else if (DO[button.dataset.do]) DO[button.dataset.do]();
});
find(".m-file").addEventListener("change", (event) => { give(event.target.files[0]); event.target.value = ""; });
find(".m-maskfile").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (file) { const { path } = await upload(file); trigger("own_mask", { path, name: file.name }); }
});
for (const name of ["dragover", "dragleave", "drop"]) root.addEventListener(name, (event) => {
  event.preventDefault();
  root.classList.toggle("m-over", name === "dragover");
  if (name === "drop") give(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); give(file); }
});

watch("value", () => show(props.value));
show(props.value);
