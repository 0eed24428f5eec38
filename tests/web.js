"use strict";
// Put behind the page's own script by `cargo xtask test --only web`: a damaged file is chosen, then an intact one is dropped, as a
// user would; what the page makes of it goes into attributes of the body, which the test reads.

const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 50));
};

async function useThePage() {
  await until(() => model);
  const intact = bytesOf(SHIPPED.digits);
  const damaged = intact.slice();
  damaged[damaged.length - 1] ^= 1;

  const chosen = new DataTransfer();
  chosen.items.add(new File([damaged], "damaged.waft"));
  $("file").files = chosen.files;
  $("file").dispatchEvent(new Event("change"));
  await until(() => !$("error").hidden);
  document.body.dataset.refused = $("error").textContent;
  document.body.dataset.disabled = $("draw").disabled;

  const dropped = new DataTransfer();
  dropped.items.add(new File([intact], "mine.waft"));
  dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
  await until(() => $("digest").value.length === 64);
  document.body.dataset.recovered = $("error").hidden;

  $("class").value = 3;
  $("seed").value = "18446744073709551615";
  $("steps").value = 20;
  $("request").requestSubmit();
  await until(() => $("digest").value === "–");
  await until(() => $("digest").value.length === 64);
  const { width, height } = $("canvas");
  const { data } = $("canvas").getContext("2d").getImageData(0, 0, width, height);
  const grey = Array.from({ length: width * height }, (_, i) => data[4 * i].toString(16).padStart(2, "0"));
  document.body.dataset.pixels = grey.join("");
  document.body.dataset.gif = btoa(String.fromCharCode(...animation()));
  document.body.dataset.chips = [...$("chips").rows].map((row) => row.textContent).join("\n");

  $("seed").value = "18446744073709551616";
  $("request").requestSubmit();
  await until(() => !$("error").hidden);
  document.body.dataset.seed = $("error").textContent;

  // By keyboard: every control takes the focus, in the order of the page, and has a name.
  const controls = [...document.querySelectorAll("select, input, button, [onclick]")].filter((control) => !control.disabled);
  const reached = controls.filter((control) => {
    control.focus();
    const name = control.labels?.[0]?.textContent || control.textContent || control.ariaLabel;
    return document.activeElement === control && control.tabIndex === 0 && name.trim();
  });
  document.body.dataset.controls = controls.length;
  document.body.dataset.reached = reached.length;
  // On a phone: nothing sticks out of the window, and a finger finds what can be pressed.
  document.body.dataset.window = innerWidth;
  document.body.dataset.wide = document.documentElement.scrollWidth;
  document.body.dataset.low = Math.min(...[...document.querySelectorAll("button, select")].map((e) => e.offsetHeight));
  document.body.dataset.finished = true;
}

useThePage();
