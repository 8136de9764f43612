const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
const tile = element.querySelector("img");
const bars = element.querySelector(".bars");
const NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
let drawing = false, asking = false, again = false;

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  show(null);
}

function show(answer) {
  tile.src = answer ? answer.tile : NOTHING;
  const classes = answer ? answer.classes : [];
  const best = Math.max(...classes.map(([, share]) => share));
  bars.replaceChildren(...classes.flatMap(([name, share]) => {
    const [words, track, bar, number] = ["name", "track", "bar", "share"].map((kind) => {
      const made = document.createElement("div");
      made.className = kind;
      return made;
    });
    words.textContent = name;
    words.role = "listitem";
    words.classList.toggle("best", share === best);
    bar.style.width = `${100 * share}%`;
    track.append(bar);
    number.textContent = `${(100 * share).toFixed(1)}%`;
    return [words, track, number];
  }));
}

// One question at a time; what was drawn meanwhile is asked about next.
async function ask() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  do {
    again = false;
    show(await server.answer(canvas.toDataURL("image/png")));
  } while (again);
  asking = false;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function stroke(event) {
  if (!drawing) return;
  pen.lineTo(...place(event));
  pen.stroke();
  ask();
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  drawing = true;
  Object.assign(pen, {lineWidth: 26, lineCap: "round", lineJoin: "round", strokeStyle: "black"});
  pen.beginPath();
  pen.moveTo(...place(event));
  stroke(event);
});
canvas.addEventListener("pointermove", stroke);
canvas.addEventListener("pointerup", () => { drawing = false; });
canvas.addEventListener("pointercancel", () => { drawing = false; });
element.querySelector("button").addEventListener("click", clear);
clear();
