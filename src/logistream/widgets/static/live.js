// A plot that the kernel redraws. A new image replaces the old one when it is decoded, so that nothing flickers;
// of several that come at once only the newest is shown.

const CSS_PROBLEM = "white-space: pre-wrap; color: var(--jp-error-color1, #b00020); margin-top: 6px;";

/** Return an image of the bytes that the kernel has sent, once it can be painted. */
async function decoded(bytes, mime) {
  const image = new Image();
  const address = URL.createObjectURL(new Blob([bytes], { type: mime }));
  image.src = address;
  image.alt = "live plot";
  image.style.maxWidth = "100%";
  try {
    await image.decode();
  } finally {
    URL.revokeObjectURL(address);
  }
  return image;
}

function render({ model, el }) {
  const view = `${Date.now()}-${Math.random()}`;
  const body = document.createElement("div");
  const problem = document.createElement("div");
  problem.style.cssText = CSS_PROBLEM;
  problem.setAttribute("role", "status");
  el.append(body, problem);
  let newest = 0;

  async function show() {
    const number = ++newest;
    const mime = model.get("mime");
    let content;
    if (mime.startsWith("image/")) {
      content = await decoded(model.get("image"), mime).catch(() => null);
    } else {
      content = document.createElement(mime === "text/html" ? "div" : "pre");
      if (mime === "text/html") content.innerHTML = model.get("text");
      else content.textContent = model.get("text");
    }
    if (content && number === newest) body.replaceChildren(content);
  }

  function showProblem() {
    problem.textContent = model.get("problem");
  }

  model.on("change:shown", show);
  model.on("change:problem", showProblem);
  show();
  showProblem();
  model.send({ view, open: true });
  return () => {
    model.off("change:shown", show);
    model.off("change:problem", showProblem);
    model.send({ view, open: false });
  };
}

export default { render };
