// The table of six tokens. Formulas as in core/rlhf: token_rewards.py, gae.py, ppo_loss.py.
(function () {
  "use strict";
  const data = /* DATA */ null;
  const n = data.words.length;
  const knobs = {
    beta: ["β, weight of the KL penalty", 0, 1, 0.01],
    gamma: ["γ, discount", 0.5, 1, 0.01],
    lam: ["λ of GAE", 0, 1, 0.01],
    eps: ["ε, clipping", 0.05, 0.5, 0.01],
  };
  const rows = [
    ["old", "log π of the draw"],
    ["reference", "log π of the reference"],
    ["kl", "their difference"],
    ["reward", "reward: −β · difference, and the score at the end"],
    ["value", "value"],
    ["delta", "δ = r + γ V(next) − V"],
    ["advantage", "advantage = δ + γ λ · next advantage"],
    ["return", "return = advantage + value"],
    ["ratio", "ratio, new π / old π"],
    ["clipped", "ratio, clipped"],
    ["loss", "loss = −min(ratio · A, clipped · A)"],
  ];

  function computed(at) {
    const out = Object.fromEntries(rows.map(([key]) => [key, []]));
    let next = 0;
    for (let t = n - 1; t >= 0; t--) {
      const last = t === n - 1;
      out.old[t] = data.old[t];
      out.reference[t] = data.reference[t];
      out.kl[t] = data.old[t] - data.reference[t];
      out.reward[t] = -at.beta * out.kl[t] + (last ? data.score : 0);
      out.value[t] = data.values[t];
      out.delta[t] = out.reward[t] + (last ? 0 : at.gamma * data.values[t + 1]) - data.values[t];
      next = out.delta[t] + at.gamma * at.lam * next;
      out.advantage[t] = next;
      out.return[t] = next + data.values[t];
      out.ratio[t] = Math.exp(data.new[t] - data.old[t]);
      out.clipped[t] = Math.min(Math.max(out.ratio[t], 1 - at.eps), 1 + at.eps);
      out.loss[t] = -Math.min(out.ratio[t] * next, out.clipped[t] * next);
    }
    return out;
  }

  const root = document.getElementById("figure-six-tokens");
  const at = Object.assign({}, data.first);
  const controls = document.createElement("div");
  controls.className = "knobs";
  for (const [key, [label, low, high, step]] of Object.entries(knobs)) {
    const wrap = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: low, max: high, step: step, value: at[key], id: "knob-" + key });
    const shown = document.createElement("output");
    shown.textContent = at[key];
    input.addEventListener("input", () => {
      at[key] = Number(input.value);
      shown.textContent = input.value;
      draw();
    });
    wrap.append(label + " ", input, " ", shown);
    controls.append(wrap);
  }
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  const table = document.createElement("table");
  scroll.append(table);
  root.append(controls, scroll);

  function draw() {
    const found = computed(at);
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    head.append(document.createElement("th"));
    for (const word of data.words) {
      const cell = document.createElement("th");
      cell.textContent = word;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const [key, label] of rows) {
      const row = body.insertRow();
      row.dataset.row = key;
      const name = document.createElement("th");
      name.textContent = label;
      row.append(name);
      for (const value of found[key]) {
        row.insertCell().textContent = value.toFixed(3).replace("-", "−");
      }
    }
  }

  const found = computed(data.first);
  root.dataset.agrees = String(
    Object.entries(data.expected).every(([key, values]) =>
      values.every((value, t) => Math.abs(value - found[key][t]) < 1e-12)
    )
  );
  draw();
})();
