// The bar: state, pause, rate, scenario, faults, length of the axis, export. It shows the settings of the server, and sends only
// what a person does: on release of the slider, not while it is dragged.
import { duration, element, exact, parseRate, setText, sliderRate, whole } from "./format.js";
import { SILENT } from "./session.js";

const [LOWEST, HIGHEST] = [-1, 5]; // powers of ten of the slider
const KEY_REST = 400; // ms after the last key press until a rate chosen by keys is sent
const WAIT = 1500; // ms until the server's old rate is shown again if a new one has no answer

/** State and reason, as they are shown. */
function stateOf(session) {
  const [state, reason] = session.state ?? ["connecting", ""];
  const silent = session.silence();
  if (silent > SILENT) return ["silent", `no answer from the kernel for ${duration(silent)}: the figures are old`];
  return [state, reason];
}

export function bar(session, { full, ask }) {
  const dot = element("i", "ls-dot", { "aria-hidden": "true" });
  const word = element("b", "ls-state-word");
  const reason = element("span", "ls-state-reason");
  const status = element("div", "ls-state", { role: "status", "aria-live": "polite" }, dot, word, reason);
  const node = element("div", "ls-bar", { role: "toolbar", "aria-label": "Stream" }, status);
  const { steered, spans } = session.config;
  const alert = element("div", "ls-alert", { role: "alert", hidden: true });
  let pause, input, slider;
  let menus = [];
  let editing = false;
  let dragging = false;
  let sentAt = 0;
  let sent = null;
  let keyTimer = 0;

  let complained = []; // what was in force when something was refused
  let reachable = true;
  const inForce = () => [session.settings?.rate, session.settings?.paused, session.scenarios, session.faults];

  function complain(text) {
    alert.textContent = text;
    alert.hidden = false;
    complained = inForce();
  }
  function clearAlert() {
    alert.hidden = true;
    input?.removeAttribute("aria-invalid");
  }
  function act(message) {
    clearAlert();
    ask(message);
  }
  function send(rate) {
    clearTimeout(keyTimer);
    [sent, sentAt] = [rate, performance.now()];
    act({ kind: "rate", value: rate });
  }
  function commit() {
    const rate = parseRate(input.value);
    if (!Number.isFinite(rate)) {
      complain(`“${input.value}” is not a rate: type a number of events per second, such as 25 or 0.5.`);
      input.setAttribute("aria-invalid", "true");
      return;
    }
    editing = false;
    input.blur();
    if (rate !== session.settings?.rate) send(rate);
    else clearAlert();
  }

  if (full && steered) {
    menus = MENUS.map((each) => choiceMenu(session, each, (value) => act({ kind: each.name, value })));
    pause = element("button", "ls-button ls-pause", {
      type: "button",
      onclick: () => act({ kind: "pause", value: !session.settings?.paused }),
    }, "Pause");
    input = element("input", "ls-rate", {
      type: "text", inputmode: "decimal", size: "8", "aria-label": "Rate, events per second, exact", autocomplete: "off", spellcheck: "false",
      oninput: () => { editing = true; },
      onfocus: () => input.select(),
      onkeydown: (event) => {
        event.stopPropagation();
        if (event.key === "Enter") commit();
        if (event.key === "Escape") {
          editing = false;
          clearAlert();
          input.blur();
        }
      },
      onblur: () => { if (editing) commit(); },
    });
    const preview = () => {
      const rate = sliderRate(Number(slider.value));
      input.value = exact(rate);
      describe(rate);
    };
    const describe = (rate) => slider.setAttribute("aria-valuetext", `${exact(rate)} events per second`);
    slider = element("input", "ls-slider", {
      type: "range", min: LOWEST, max: HIGHEST, step: "0.01", value: LOWEST, "aria-label": "Rate, events per second",
      oninput: () => { dragging = true; preview(); },
      onchange: () => {
        const rate = sliderRate(Number(slider.value));
        clearTimeout(keyTimer);
        if (slider.dataset.keys) keyTimer = setTimeout(() => { dragging = false; send(rate); }, KEY_REST);
        else { dragging = false; send(rate); }
      },
      onkeydown: (event) => {
        event.stopPropagation();
        const steps = { ArrowRight: 0.1, ArrowUp: 0.1, ArrowLeft: -0.1, ArrowDown: -0.1, PageUp: 1, PageDown: -1 }[event.key];
        if (steps === undefined) return;
        event.preventDefault();
        slider.dataset.keys = "1";
        slider.value = Math.round((Number(slider.value) + steps) * 10) / 10;
        slider.dispatchEvent(new Event("input"));
        slider.dispatchEvent(new Event("change"));
      },
      onpointerdown: () => { delete slider.dataset.keys; },
    });
    slider.describe = describe;
    const [least, most] = session.config.rates.map(exact);
    const [low, high] = [LOWEST, HIGHEST].map((power) => exact(10 ** power));
    const ticks = element("div", "ls-ticks", { "aria-hidden": "true" });
    for (let power = LOWEST; power <= HIGHEST; power++) {
      const tick = element("span", "", {}, { "-1": "0.1", 3: "1k", 4: "10k", 5: "100k" }[power] ?? String(10 ** power));
      tick.style.left = `${(100 * (power - LOWEST)) / (HIGHEST - LOWEST)}%`;
      ticks.append(tick);
    }
    node.append(
      pause,
      element("label", "ls-rate-box", { title: `Exact rate: type a number from ${least} to ${most} and press Enter` }, input, element("span", "ls-unit", {}, "events/s")),
      element("div", "ls-slider-box", { title: `From ${low} to ${high} events per second; the number beside it can be from ${least} to ${most}` }, slider, ticks),
      ...menus.map((menu) => menu.node),
    );
  }
  const clients = element("span", "ls-clients");
  const right = element("div", "ls-bar-right");
  let spanButtons = [];
  let live;
  if (session.config.parts.includes("time")) {
    const group = element("div", "ls-segments", { role: "group", "aria-label": "Length of the time axis" });
    for (const span of [...spans, "all"]) {
      const button = element("button", "", {
        type: "button", "aria-pressed": "false",
        title: span === "all" ? "Everything since the stream began" : `The last ${duration(span)}`,
        onclick: () => session.setSpan(span),
      }, span === "all" ? "all" : duration(span));
      button.span = span;
      spanButtons.push(button);
      group.append(button);
    }
    live = element("button", "ls-button ls-live", { type: "button", hidden: true, onclick: () => session.goLive() }, "Back to live");
    right.append(live, group);
  }
  if (session.config.parts.includes("table")) right.append(exportMenu(ask, session));
  if (session.config.parts.includes("time")) {
    right.append(element("button", "ls-button ls-icon", {
      type: "button", title: "Larger, for a projector", "aria-label": "Larger, for a projector", "aria-pressed": "false",
      onclick: (event) => event.currentTarget.setAttribute("aria-pressed", String(session.toggleProjector())),
    }, "A⁺"));
  }
  if (full && steered && !session.config.parts.includes("time")) right.append(clients);
  node.append(right, alert);

  function draw() {
    const [state, why] = stateOf(session);
    dot.dataset.state = state;
    setText(word, state === "silent" ? "no kernel" : state);
    setText(reason, why);
    status.title = `${session.config.server}${session.facts ? ` · ${whole(session.facts[0])} events seen, ${whole(session.facts[1])} in the frame` : ""}`;
    const { settings } = session;
    const back = settings?.reachable && !reachable;
    reachable = settings?.reachable ?? true;
    if (!editing && (back || inForce().some((value, i) => value !== complained[i]))) clearAlert();
    if (pause) {
      const off = !settings || !settings.reachable || state === "silent";
      pause.disabled = input.disabled = slider.disabled = off;
      for (const menu of menus) if (!menu.draw(off)) pause.focus();
      if (settings) {
        setText(pause, settings.paused ? "Resume" : "Pause");
        pause.setAttribute("aria-pressed", String(settings.paused));
        if (sent != null && (settings.rate === sent || performance.now() - sentAt > WAIT)) sent = null;
        if (!editing && !dragging && sent == null && document.activeElement !== input) input.value = exact(settings.rate);
        if (!dragging && sent == null) {
          const position = Math.min(HIGHEST, Math.max(LOWEST, Math.log10(settings.rate)));
          if (Math.abs(Number(slider.value) - position) > 0.004) slider.value = position;
          slider.describe(settings.rate);
        }
      }
      if (settings?.clients != null) setText(clients, `${settings.clients} reader${settings.clients === 1 ? "" : "s"}`);
    }
    if (live) {
      if (session.isLive() && document.activeElement === live) live.closest(".ls-board").focus({ preventScroll: true });
      live.hidden = session.isLive();
      for (const button of spanButtons) {
        const on = session.isLive() && button.span === session.span;
        button.setAttribute("aria-pressed", String(on));
        if (button.span === "all") button.hidden = session.layout?.started == null;
      }
    }
  }
  return { node, draw, complain, release: () => { sent = null; } };
}

/** A button with a menu below it, for the pointer and for the keyboard; it `stays` open if several can be chosen. */
function menuOf(button, { stays = false } = {}) {
  const menu = element("div", "ls-menu", { role: "menu", hidden: true });
  const items = () => [...menu.querySelectorAll("button")];
  function toggle(open) {
    menu.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) {
      const room = box.closest(".ls-board").getBoundingClientRect().right - box.getBoundingClientRect().left;
      menu.classList.toggle("ls-menu-left", menu.offsetWidth < room);
      (menu.querySelector("[aria-checked='true']") ?? items()[0]).focus();
    }
  }
  const item = (attributes, choose, ...content) => element("button", "", {
    type: "button", role: "menuitem", ...attributes,
    onclick: () => {
      if (!stays) {
        button.focus();
        toggle(false);
      }
      choose();
    },
  }, ...content);
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => toggle(menu.hidden));
  const box = element("div", "ls-menu-box", {
    onkeydown: (event) => {
      if (menu.hidden) return;
      const all = items();
      const at = all.indexOf(document.activeElement);
      if (event.key === "Escape") { event.stopPropagation(); button.focus(); toggle(false); }
      const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (next !== undefined) { event.preventDefault(); all[(next + all.length) % all.length].focus(); }
    },
    onfocusout: (event) => { if (event.relatedTarget && !box.contains(event.relatedTarget)) toggle(false); },
  }, button, menu);
  return { box, menu, item, items };
}

const MENUS = [
  { name: "scenario", list: "scenarios", title: "Scenario", none: "The model as it was fitted.", invitation: "What if: choose a scenario" },
  {
    name: "faults", list: "faults", title: "Faults", none: "All events arrive in order, once and whole.", several: true,
    note: "Deliveries to other readers; this workbench shows the events as they happened.", invitation: "Choose what goes wrong on the wire",
  },
];

/** What can be chosen of one list of the session. The button names what is in force at the server, not what was clicked. */
function choiceMenu(session, { name, list, title, none, several = false, note, invitation }, choose) {
  const label = element("span", "ls-choice-name");
  const button = element("button", `ls-button ls-choice ls-${name}`, { type: "button" }, label, element("span", "", { "aria-hidden": "true" }, " ▾"));
  const { box, menu, item, items } = menuOf(button, { stays: several });
  menu.setAttribute("aria-label", title);
  let drawn = null;

  /** Show the newest list. Returns false if the menu goes away while it has the focus. */
  function draw(off) {
    button.disabled = off;
    if (drawn === session[list]) return true;
    drawn = session[list];
    const on = drawn.filter((each) => each.on);
    const focus = items().indexOf(document.activeElement);
    const lost = !drawn.length && box.contains(document.activeElement);
    const nothing = { name: "none", text: none, value: null, on: !on.length };
    menu.replaceChildren(...(note && session.config.parts.includes("time") ? [element("div", "ls-menu-note", { role: "note" }, note)] : []), ...[nothing, ...drawn].map((each) => item(
      { role: several ? "menuitemcheckbox" : "menuitemradio", "aria-checked": String(each.on) },
      () => { if (!each.on || (several && each !== nothing)) choose(each.value); },
      element("b", "", {}, each.name), element("span", "ls-menu-text", {}, each.text),
    )));
    if (focus >= 0) items()[Math.min(focus, drawn.length)].focus();
    const names = on.map((each) => each.name).join(", ") || "none";
    setText(label, on.length > 1 ? `${on.length} ${list}` : on.length ? names : `${title}: none`);
    button.title = on.length ? `In force: ${on.map((each) => `${each.name}. ${each.text}`).join(" ")}` : invitation;
    button.setAttribute("aria-label", `${title}: ${names}`);
    button.dataset.on = String(on.length > 0);
    box.hidden = !drawn.length;
    return !lost;
  }
  box.hidden = true;
  return { node: box, draw };
}

function exportMenu(ask, session) {
  const { box, menu, item } = menuOf(element("button", "ls-button", { type: "button", title: "Save what is shown" }, "Export ▾"));
  const formats = [
    ["png", "Picture (PNG)"], ["csv", "Rows as CSV"], ["parquet", "Rows as Parquet"], ["pandas", "Copy as pandas"],
  ];
  menu.append(...formats.map(([format, label]) => item({}, () => {
    session.notify("…");
    ask({ kind: "export", format });
  }, label)));
  return box;
}
