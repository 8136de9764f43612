const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
const tile = element.querySelector("img");
const bars = element.querySelector(".bars");
const NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
let pointer = null, asking = false, again = false, cleared = 0;

function clear() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.beginPath();
  pointer = null;
  cleared += 1;
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

// One question at a time; what was drawn meanwhile is asked about next. An answer about a drawing that was cleared is dropped.
async function ask() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  do {
    again = false;
    const before = cleared;
    try {
      const answer = await server.answer(canvas.toDataURL("image/png"));
      if (before === cleared) show(answer);
    } catch (error) {
      console.error(error);
    }
  } while (again);
  asking = false;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function stroke(event) {
  if (event.pointerId !== pointer) return;
  pen.lineTo(...place(event));
  pen.stroke();
  ask();
}

function end(event) {
  if (event.pointerId === pointer) pointer = null;
}

canvas.addEventListener("pointerdown", (event) => {
  if (pointer !== null) return; // only the first finger draws
  canvas.setPointerCapture(event.pointerId);
  pointer = event.pointerId;
  Object.assign(pen, {lineWidth: 26, lineCap: "round", lineJoin: "round", strokeStyle: "black"});
  pen.beginPath();
  pen.moveTo(...place(event));
  stroke(event);
});
canvas.addEventListener("pointermove", stroke);
canvas.addEventListener("pointerup", end);
canvas.addEventListener("pointercancel", end);
element.querySelector("button").addEventListener("click", clear);
clear();
