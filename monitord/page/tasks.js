// Monitoring tasks: what each watches for, and starting and stopping it. A daemon without them says so.
import { h } from "./element.js";
import { moment, price } from "./format.js";
import { ask, isPassing } from "./gateway.js";
import { heads } from "./table.js";
import { t } from "./words.js";

const PATH = "api/v1/monitor/tasks", ANEW_MS = 5000;

let offered = null;

/** Tell whether the daemon has tasks: its own document of routes says so. */
async function isOffered() {
  offered ??= Object.hasOwn((await ask("v1/openapi.json")).paths, `/${PATH}`);
  return offered;
}

/** The list in an answer, whether it is the list itself or holds it. */
const listOf = (data) => Array.isArray(data) ? data : data?.tasks ?? data?.items ?? [];

const range = (task) => task.entry_min === null && task.entry_max === null ? "–" : `${price(task.entry_min)} – ${price(task.entry_max)}`;

function removal(task, act) {
  let isSure = false;
  const button = h("button", { type: "button", class: "plain", onclick: () => {
    if (isSure) return act(task, "DELETE", "");
    isSure = true;
    button.textContent = t("delete_sure");
    button.classList.add("bad");
  } }, t("delete"));
  return button;
}

function row(task, act) {
  const isRunning = task.status === "running";
  return h("tr", { "data-task": task.id },
    h("td", {}, h("b", {}, task.task_name), h("br"), h("span", { class: "code" }, task.stock_code, task.stock_name ? ` ${task.stock_name}` : "")),
    h("td", { class: "beside" }, h("span", { class: `tag ${isRunning ? "running" : ""}`, "data-role": "status" }, t(isRunning ? "running_state" : "stopped_state"))),
    h("td", { class: "number beside" }, range(task)), h("td", { class: "number beside up" }, price(task.take_profit)), h("td", { class: "number beside down" }, price(task.stop_loss)), h("td", { class: "number beside" }, String(task.check_interval ?? "–")),
    h("td", { class: "tight beside dim" }, moment(Date.parse(task.updated_at ?? task.created_at ?? ""))),
    h("td", { class: "number" }, h("button", { type: "button", class: isRunning ? "" : "main", onclick: () => act(task, "POST", isRunning ? "/stop" : "/start") }, t(isRunning ? "stop" : "start")), " ", removal(task, act)));
}

function creation(done) {
  const number = (name) => h("label", {}, t(name), h("input", { name, type: "number", step: "any", min: 0 }));
  const wrong = h("p", { class: "bad", role: "alert", hidden: true });
  const form = h("form", { class: "pad stack", hidden: true, onsubmit: async (event) => {
    event.preventDefault();
    const given = new FormData(form), body = { trading_hours_only: given.has("trading_hours_only"), notification_enabled: given.has("notification_enabled") };
    for (const [name, text] of given) if (typeof body[name] !== "boolean" && text !== "") body[name] = ["task_name", "stock_code"].includes(name) ? text.trim() : Number(text);
    try {
      await ask(PATH, { method: "POST", body });
      form.reset();
      form.hidden = true;
      wrong.hidden = true;
      done();
    } catch (error) {
      wrong.textContent = error.field ? `${error.field}: ${error.message}` : error.message;
      wrong.hidden = false;
    }
  } },
  h("div", { class: "form" }, h("label", {}, t("task_name"), h("input", { name: "task_name", required: true, maxlength: 100 })), h("label", {}, t("stock"), h("input", { name: "stock_code", required: true, placeholder: "600519.SH", pattern: "[0-9]{6}(\\.(SH|SZ|BJ))?" })),
    number("entry_min"), number("entry_max"), number("take_profit"), number("stop_loss"), h("label", {}, t("interval"), h("input", { name: "check_interval", type: "number", min: 1, value: 60 })),
    h("label", { class: "check" }, h("input", { name: "trading_hours_only", type: "checkbox", checked: true }), t("hours_only")), h("label", { class: "check" }, h("input", { name: "notification_enabled", type: "checkbox", checked: true }), t("notify"))),
  wrong, h("div", { class: "line" }, h("button", { type: "submit", class: "main" }, t("create")), h("button", { type: "button", onclick: () => { form.hidden = true; } }, t("cancel"))));
  return form;
}

export function tasks() {
  const body = h("tbody", {}), empty = h("p", { class: "empty", "data-role": "tasks-empty" }, t("loading")), wrong = h("p", { class: "pad bad", role: "alert", hidden: true }), counted = h("span", { class: "count" });
  const table = h("table", { class: "stacked", hidden: true }, heads(t("task_name"), t("state"), [t("entry"), "number"], [t("take_profit"), "number"], [t("stop_loss"), "number"], [t("interval"), "number"], t("time"), [h("span", { class: "unseen" }, t("start")), "number"]), body);
  let timer = 0, isGone = false;

  const none = (text) => {
    table.hidden = make.hidden = true;
    empty.hidden = false;
    empty.textContent = text;
  };
  const later = () => { clearTimeout(timer); timer = setTimeout(read, ANEW_MS); };
  const read = async () => {
    clearTimeout(timer);
    try {
      if (!await isOffered()) return none(t("no_tasks_api"));
      const told = listOf((await ask(PATH)).data);
      if (isGone) return;
      if (!body.contains(document.activeElement)) body.replaceChildren(...told.map((task) => row(task, act)));
      counted.textContent = told.length;
      empty.textContent = t("no_tasks");
      empty.hidden = told.length > 0;
      table.hidden = !empty.hidden;
      make.hidden = false;
      later();
    } catch (error) {
      if (isGone) return;
      none(error.message);
      if (isPassing(error)) later();
    }
    return undefined;
  };
  const act = async (task, method, what) => {
    try {
      await ask(`${PATH}/${encodeURIComponent(task.id)}${what}`, { method });
      wrong.hidden = true;
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    document.activeElement?.blur?.();
    read();
  };
  const form = creation(read), make = h("button", { type: "button", hidden: true, onclick: () => { form.hidden = !form.hidden; if (!form.hidden) form.querySelector("input").focus(); } }, `+ ${t("new_task")}`);
  read();
  return {
    element: h("section", { class: "panel", "aria-label": t("tasks") }, h("header", {}, h("h2", {}, t("tasks")), counted, h("span", { class: "gap" }), make), form, wrong, h("div", { class: "scroll", tabindex: "-1" }, table), empty),
    remove() { isGone = true; clearTimeout(timer); },
  };
}
