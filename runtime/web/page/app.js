"use strict";
// The page around the core. `SHIPPED` (names and files) and `CORE` (the module) are put before this script by `cargo xtask
// web`, in base64, so that the page works from a folder as well as from a server.

const $ = (id) => document.getElementById(id);
const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

const COLOURS = {
  sample: "#4477aa", condition: "#882255", prediction: "#66ccee", history: "#004488", activation: "#228833", ring: "#ccbb44",
  patches: "#999933", window: "#dd7711", map: "#ee6677", scores: "#aa3377", conditioning: "#999999", unused: "#000000",
};
// Milliseconds of work before the page may react, and slices before the clock is looked at.
const TURN = 12;

let core; // the module's exports
let model; // its description, null if none is loaded
let drawing = 0; // counts requests: a number that is no longer this one has been abandoned

const text = () => new TextDecoder().decode(new Uint8Array(core.memory.buffer, core.text(), core.text_len()));

function complain(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function stop(status) {
  drawing += 1;
  $("stop").disabled = true;
  if (status) $("status").textContent = status;
}

/** Opens a file; whether it is a model. What is wrong is shown. */
function open(name, bytes) {
  stop();
  complain("");
  clearPicture();
  // The address may move when memory grows, so the view is made afterwards.
  const at = core.reserve(bytes.length);
  new Uint8Array(core.memory.buffer, at, bytes.length).set(bytes);
  const good = core.load() === 1;
  model = good ? JSON.parse(text()) : null;
  $("draw").disabled = $("next").disabled = !good;
  if (!good) {
    complain(`${name}: ${text()}`);
    $("status").textContent = "No model is loaded.";
    for (const id of ["memory", "about"]) $(id).textContent = "–";
    for (const id of ["map", "legend", "chips"]) $(id).replaceChildren();
    return false;
  }
  describe();
  return true;
}

function describe() {
  const thousands = (number) => number.toLocaleString("en");
  const [height, width, channels] = model.shape;
  const none = model.unconditional_class;
  $("class").disabled = model.classes === 0;
  $("class").max = model.classes - 1;
  $("class").required = model.classes > 0 && none === null;
  $("class").value = model.classes === 0 ? "" : Math.min(Number($("class").value) || 0, model.classes - 1);
  $("guidance").disabled = !model.guidance;
  if (!model.guidance) $("guidance").value = 1;
  $("steps").replaceChildren(...model.steps.map((steps) => new Option(steps, steps)));
  $("hint").textContent = model.classes === 0 ? "This model has no classes."
    : none === null ? `Classes 0 to ${model.classes - 1}.`
    : `Classes 0 to ${model.classes - 1}; ${none} or nothing means "no class".`;
  $("memory").textContent = `arena ${thousands(model.arena_bytes)} B, file ${thousands(model.file_bytes)} B of flash`;
  $("about").textContent = `${model.name || "unnamed"}, ${model.precision}, ${width}×${height}×${channels}, `
    + `${thousands(model.parameters)} parameters, ${thousands(model.macs)} multiply-accumulates a call. ${model.provenance}`;
  drawMap();
  estimate();
  $("status").textContent = "Ready.";
}

function drawMap() {
  const create = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const columns = model.operations + 1;
  const boxes = model.tensors.map((tensor) => {
    const box = create("rect", {
      x: 1000 * tensor.first / columns, width: 1000 * (tensor.last + 1 - tensor.first) / columns,
      y: 400 * (1 - (tensor.offset + tensor.bytes) / model.arena_bytes), height: 400 * tensor.bytes / model.arena_bytes,
      fill: COLOURS[tensor.role], "fill-opacity": 0.8, stroke: "#fff", "stroke-width": 0.5,
    });
    const title = create("title", {});
    title.textContent = `${tensor.role} ${tensor.shape.join("×")}, ${tensor.bytes} bytes at ${tensor.offset}, `
      + `operations ${tensor.first} to ${tensor.last}`;
    box.append(title);
    return box;
  });
  $("map").replaceChildren(...boxes);
  const roles = [...new Set(model.tensors.map((tensor) => tensor.role))];
  $("legend").replaceChildren(...roles.map((role) => {
    const [item, colour] = [document.createElement("li"), document.createElement("span")];
    colour.style.background = COLOURS[role];
    item.append(colour, role);
    return item;
  }));
}

/** What the picture that the form asks for costs on chips. */
function estimate() {
  const steps = Number($("steps").value);
  if (!model || core.estimate(steps, Number($("guidance").value) === 1 ? 0 : steps) !== 1) return;
  const row = (cells, name) => {
    const line = document.createElement("tr");
    line.append(...cells.map((cell, i) => {
      const element = document.createElement(name);
      element.textContent = cell;
      if (i === 2 || i === 3) element.className = "number";
      return element;
    }));
    return line;
  };
  const lacks = (bytes, what) => bytes > 0 ? [`${bytes.toLocaleString("en")} B of ${what} too little`] : [];
  const chips = JSON.parse(text()).map((chip) => row([
    chip.chip, chip.core, chip.megahertz, chip.seconds === null ? "unknown" : chip.seconds.toFixed(2),
    [...lacks(chip.missing_flash_bytes, "flash"), ...lacks(chip.missing_ram_bytes, "memory")].join(", ") || "yes",
  ], "td"));
  $("chips").replaceChildren(row(["Chip", "Core", "MHz", "Seconds", "Fits"], "th"), ...chips);
}

function clearPicture() {
  $("canvas").getContext("2d").clearRect(0, 0, $("canvas").width, $("canvas").height);
  $("canvas").setAttribute("aria-label", "No picture yet");
  $("trajectory").replaceChildren();
  $("digest").value = $("time").textContent = "–";
  $("progress").value = 0;
  $("save").disabled = $("animate").disabled = true;
}

/** The sample as it is, on a canvas. */
function paint(canvas) {
  const [height, width, channels] = model.shape;
  const at = core.pixels();
  const pixels = new Uint8Array(core.memory.buffer, at, height * width * channels);
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i += 1) {
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = pixels[channels * i + (channels >= 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Draws what the form asks for, a little at a time. */
async function draw() {
  if (!model || !$("request").reportValidity()) return;
  stop();
  complain("");
  clearPicture();
  const seed = BigInt($("seed").value);
  const [steps, guidance] = [Number($("steps").value), Number($("guidance").value)];
  const chosen = $("class").value === "" || $("class").disabled ? -1 : Number($("class").value);
  if (seed >= 1n << 64n) return complain("The seed has 64 bits: the largest is 18446744073709551615.");
  estimate();
  if (core.begin(chosen, BigInt.asIntN(64, seed), steps, guidance) !== 1) return complain(text());
  history.replaceState(null, "", `#${new URLSearchParams({
    model: $("model").value, class: chosen < 0 ? "" : chosen, seed, steps, guidance,
  })}`);
  $("canvas").scrollIntoView({ block: "nearest" });
  const mine = drawing;
  $("stop").disabled = false;
  let [milliseconds, shown, answer] = [0, 0, 1];
  while (answer === 1) {
    const began = performance.now();
    do answer = core.step(1); while (answer === 1 && performance.now() - began < TURN && core.steps_done() === shown);
    milliseconds += performance.now() - began;
    if (answer === 0) {
      stop("Failed.");
      return complain(text());
    }
    $("progress").value = core.fraction_done();
    if (core.steps_done() !== shown) {
      shown = core.steps_done();
      paint($("canvas"));
      const [item, small] = [document.createElement("li"), document.createElement("canvas")];
      paint(small);
      small.setAttribute("aria-label", `After step ${shown}`);
      item.append(small);
      $("trajectory").append(item);
    }
    $("status").textContent = `Step ${Math.min(shown + 1, steps)} of ${steps}`;
    await new Promise((resolve) => setTimeout(resolve));
    if (drawing !== mine) return;
  }
  paint($("canvas"));
  stop(`Done: ${steps} steps.`);
  $("digest").value = text();
  $("time").textContent = `${milliseconds.toFixed(0)} ms in this browser`;
  $("canvas").setAttribute("aria-label", `Picture of class ${chosen < 0 ? "none" : chosen}, seed ${seed}`);
  $("save").disabled = $("animate").disabled = false;
}

/** Pixels of the screen that one of the picture's takes in a file: enough for it to be at least 256 wide. */
const scale = () => Math.max(1, Math.ceil(256 / $("canvas").width));

/** Gives the user a file. */
function download(address, ending) {
  const link = document.createElement("a");
  link.download = `waft-${model.name || "picture"}-${$("class").value || "none"}-${$("seed").value}.${ending}`;
  link.href = address;
  link.click();
}

function savePng() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [$("canvas").width * scale(), $("canvas").height * scale()];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage($("canvas"), 0, 0, canvas.width, canvas.height);
  download(canvas.toDataURL("image/png"), "png");
}

/** The picture after each step, as bytes of a GIF. */
function animation() {
  const at = core.gif(scale());
  if (at === 0) complain(text());
  return at === 0 ? null : new Uint8Array(core.memory.buffer, at, core.gif_len()).slice();
}

function saveGif() {
  const bytes = animation();
  if (!bytes) return;
  const address = URL.createObjectURL(new Blob([bytes], { type: "image/gif" }));
  download(address, "gif");
  // The download has begun by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function openFile(file) {
  if (!file) return;
  const bytes = new Uint8Array(await file.arrayBuffer());
  // A file is none of the shipped models.
  $("model").selectedIndex = -1;
  if (open(file.name, bytes)) draw();
}

function openShipped(name) {
  const file = SHIPPED[name];
  if (!file) return complain(`There is no shipped model ${name}.`);
  $("model").value = name;
  $("file").value = "";
  return open(name, bytesOf(file));
}

async function start() {
  const { instance } = await WebAssembly.instantiate(bytesOf(CORE), {});
  core = instance.exports;
  $("model").replaceChildren(...Object.keys(SHIPPED).map((name) => new Option(name, name)));
  $("model").addEventListener("change", () => openShipped($("model").value));
  $("file").addEventListener("change", () => openFile($("file").files[0]));
  $("request").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  $("next").addEventListener("click", () => {
    if (/^[0-9]+$/.test($("seed").value)) $("seed").value = (BigInt($("seed").value) + 1n) % (1n << 64n);
    draw();
  });
  $("stop").addEventListener("click", () => stop("Stopped."));
  $("save").addEventListener("click", savePng);
  $("animate").addEventListener("click", saveGif);
  for (const id of ["steps", "guidance"]) $(id).addEventListener("change", estimate);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openFile(event.dataTransfer.files[0]);
  });
  // The address of a picture: #model=digits&class=7&seed=1&steps=10&guidance=1
  const asked = new URLSearchParams(location.hash.slice(1));
  const opened = openShipped(asked.get("model") || Object.keys(SHIPPED)[0]);
  for (const key of ["class", "seed", "steps", "guidance"]) if (asked.has(key)) $(key).value = asked.get(key);
  if (opened && asked.has("seed")) draw();
}

start().catch((error) => complain(`The page cannot start: ${error.message}`));
