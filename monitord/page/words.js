// Every word of the page in both languages, and which of them is spoken.
import { browser } from "./keep.js";

const WORDS = {
  // places
  board: ["看板", "Board"], history: ["历史", "History"], rules: ["规则", "Rules"], tasks: ["任务", "Tasks"], health: ["状态", "Health"],
  places: ["栏目", "Views"],
  // connection
  connecting: ["连接中", "Connecting"], live: ["实时", "Live"], waiting: ["重新连接…", "Reconnecting…"], stopped: ["已停止", "Stopped"],
  upgraded: ["服务已升级，请重新加载页面：", "The server runs a new version; reload this page:"], load_anew: ["重新加载", "Reload"],
  missed: ["离线期间错过的提醒已超出可补发的范围，此处已按历史记录刷新。", "More was missed while away than can be replayed; the list below comes from the history."],
  origin: ["此页面来源无权使用该服务。", "This page's origin may not use the gateway."],
  refused: ["服务拒绝连接：", "The gateway refused: "], unreadable: ["该令牌无权查看：", "This token may not read: "], close: ["关闭", "Close"], open_history: ["查看历史", "Open the history"],
  token_title: ["需要访问令牌", "A token is needed"], token: ["令牌", "Token"], token_enter: ["连接", "Connect"],
  token_why: ["令牌只保存在本标签页，关闭即忘。", "It is kept in this tab only, and forgotten when you close it."],
  token_bad: ["令牌无效或已过期。", "That token is wrong or has expired."], token_forget: ["忘记令牌", "Forget the token"],
  failed: ["请求失败：", "The request failed: "],
  // looks
  theme: ["浅色或深色", "Light or dark"], language: ["Switch to English", "切换为中文"], colours: ["涨跌颜色：现为红涨绿跌", "Colours: now red up, green down"],
  colours_west: ["涨跌颜色：现为绿涨红跌", "Colours: now green up, red down"],
  market_time: ["行情时间", "Market time"], charts_by: ["图表：", "Charts by "],
  // board
  watchlist: ["自选", "Watch list"], add: ["代码或名称", "Code or name"], add_label: ["添加证券：输入代码或名称", "Add a symbol: type a code or name"], nothing_found: ["没有匹配的证券", "No symbol matches"],
  name: ["名称", "Name"], trend: ["走势", "Trend"], last: ["最新", "Last"], change_percent: ["涨跌幅", "Change"], change: ["涨跌", "±"], amount: ["成交额", "Turnover"],
  remove: ["移除", "Remove"], watch_empty: ["还没有自选，用上面的搜索添加。", "Nothing is watched yet. Add symbols with the search above."],
  open: ["今开", "Open"], high: ["最高", "High"], low: ["最低", "Low"], prev: ["昨收", "Prev"], volume: ["成交量", "Volume"], lots: ["手", " lots"],
  period: ["周期", "Period"], no_bars: ["暂无该周期的K线：没有生效的规则用到它，或行情刚刚开始。", "No bars of this period yet: no rule in force uses it, or trading has just begun."],
  chart_of: ["K线图", "chart"], marks: ["次触发", "fires"], waiting_quote: ["等待行情", "waiting for a quote"],
  p_1m: ["1分", "1m"], p_5m: ["5分", "5m"], p_15m: ["15分", "15m"], p_30m: ["30分", "30m"], p_60m: ["60分", "60m"], p_1d: ["日", "1d"], p_1w: ["周", "1w"], p_1mon: ["月", "1mon"], p_tick: ["逐笔", "tick"],
  // alerts
  alerts: ["提醒", "Alerts"], filter: ["筛选", "Filter"], only_watched: ["只看自选", "Watched only"],
  no_alerts: ["暂无提醒，触发后立即显示。", "No alerts yet. They appear here the moment they fire."], none_match: ["没有符合筛选的提醒。", "No alert matches the filter."],
  new_alert: ["新提醒", "New alert"], new_alerts: ["条新提醒", "new alerts"],
  e_fire: ["触发", "fire"], e_resolve: ["解除", "resolve"], e_pending: ["待定", "pending"], e_confirmed: ["确认", "confirmed"], e_withdrawn: ["撤回", "withdrawn"],
  e_suppressed: ["抑制", "suppressed"], e_nodata: ["无数据", "no data"], e_flapping: ["抖动", "flapping"], e_expired: ["过期", "expired"],
  values: ["触发时的值", "Values when it fired"], tick: ["当时行情", "The tick"], condition: ["条件现在的各部分", "Parts of the condition, now"], deliveries: ["投递", "Deliveries"], why: ["原因", "Why"], about: ["关于哪条提醒", "About another alert"],
  not_delivered: ["没有接收方收到此提醒。", "No receiver was to get this."], no_explain: ["无法解释：", "It cannot be explained: "], loading: ["读取中…", "Loading…"],
  watch_it: ["加入自选", "Add to the board"], rearm: ["重新待命条件", "Rearm"], phase: ["状态", "Phase"], attempts: ["次尝试", "attempts"], only_within: ["只在更大的式子里计算", "evaluated within a larger part only"],
  // history
  event: ["事件", "Event"], rule: ["规则", "Rule"], severity: ["级别", "Severity"], message: ["内容", "Message"], time: ["时间", "Time"], symbol: ["证券", "Symbol"], delivery: ["投递", "Delivery"],
  all_events: ["全部事件", "All events"], all_severities: ["全部级别", "All severities"], all_states: ["全部状态", "All states"],
  trade_date: ["交易日", "Trade date"], newer: ["较新", "Newer"], older: ["较早", "Older"], page: ["页", "page"], refresh: ["刷新", "Refresh"], clear: ["清除筛选", "Clear filters"],
  d_pending: ["待送", "pending"], d_delivered: ["已送达", "delivered"], d_dead: ["失败", "dead"], d_withheld: ["未送", "withheld"], receiver: ["接收方", "Receiver"], state: ["状态", "State"], reason: ["原因", "Reason"],
  by_alert: ["按提醒", "By alert"], by_delivery: ["按投递", "By delivery"], recorded: ["记录时间", "Recorded"], kind: ["类型", "Kind"], none: ["无", "none"], nothing_here: ["没有记录。", "Nothing here."],
  // rules and try-out
  rules_in_force: ["生效规则", "Rules in force"], reload: ["重新读取规则文件", "Reload rule files"], reloaded: ["已读取，生效规则数：", "Read; rules in force: "], formula: ["公式", "Formula"], group: ["分组", "Group"],
  s_ready: ["就绪", "ready"], s_warming: ["预热", "warming"], s_waiting: ["等待行情", "waiting"], s_groups: ["板块规则", "over groups"], try_it: ["试运行", "Try it"],
  tryout: ["公式试运行", "Try a formula out"], run: ["运行", "Run"], running: ["运行中…", "Running…"], on: ["数据", "On"], on_bars: ["K线收盘", "Bar closes"], on_ticks: ["录制的逐笔", "Recorded ticks"], bars: ["根数", "Bars"],
  symbols: ["证券", "Symbols"], fires: ["触发", "Fires"], no_fires: ["在这些数据上没有触发。", "It fires nowhere on this."], try_hint: ["Ctrl+Enter 运行；K线模式在每根收盘时求值，由假变真为一次触发。", "Ctrl+Enter runs it. On bars it is evaluated at each close; turning from false to true is a fire."],
  choose_symbols: ["先选至少一只证券。", "Choose at least one symbol."], true_now: ["当前为真", "true now"], false_now: ["当前为假", "false now"], unknown_now: ["当前未知", "unknown now"], no_symbol_bars: ["没有数据", "no data"],
  warnings: ["警告", "Warnings"], note: ["说明：", "Note: "], go_there: ["转到出错处", "Go to it"],
  // tasks
  no_tasks_api: ["此版本的服务尚未提供监控任务。", "This daemon does not offer monitoring tasks."], no_tasks: ["还没有监控任务。", "There are no monitoring tasks yet."],
  task_name: ["任务名", "Task"], stock: ["证券代码", "Symbol"], entry: ["入场区间", "Entry range"], entry_min: ["入场下限", "Entry from"], entry_max: ["入场上限", "Entry to"], take_profit: ["止盈", "Take profit"], stop_loss: ["止损", "Stop loss"],
  interval: ["间隔（秒）", "Interval (s)"], running_state: ["运行中", "running"], stopped_state: ["已停止", "stopped"], start: ["启动", "Start"], stop: ["停止", "Stop"], new_task: ["新建任务", "New task"], create: ["创建", "Create"], cancel: ["取消", "Cancel"],
  hours_only: ["仅交易时段", "Trading hours only"], notify: ["发送通知", "Notify"], delete: ["删除", "Delete"], delete_sure: ["再按一次删除", "Press again to delete"],
  // health
  ready: ["就绪", "Ready"], not_ready: ["未就绪", "Not ready"], uptime: ["已运行", "Up for"], feed: ["行情源", "Feed"], engine: ["引擎", "Engine"], outbox: ["发件箱", "Outbox"], receivers: ["接收方", "Receivers"], reference: ["参考数据", "Reference"],
  recording: ["录制", "Recording"], loop_lag: ["事件循环延迟", "Loop lag"], no_health: ["等待服务的报告…", "Waiting for the daemon's report…"], no_receivers: ["没有配置接收方：提醒只在这里和 Redis 中。", "No receiver is set up: alerts are told here and in Redis alone."],
  r_ok: ["正常", "ok"], r_paused: ["暂停", "paused"], r_misconfigured: ["配置有误", "misconfigured"], r_disabled: ["停用", "disabled"], enable: ["启用", "Enable"], disable: ["停用", "Disable"], dead_letters: ["死信", "dead"], in_line: ["待送", "pending"],
  nothing: ["无", "nothing"], ticks: ["行情数", "Ticks"], rules_count: ["规则数", "Rules"], symbols_count: ["证券数", "Symbols"], details: ["明细", "Details"],
};

let spoken = browser.get("language") ?? ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");

export const language = () => spoken;

export function speak(next) {
  spoken = next === "zh" ? "zh" : "en";
  browser.set("language", spoken);
  tellDocument();
}

export function tellDocument() {
  document.documentElement.lang = spoken === "zh" ? "zh-CN" : "en";
}

/** The word of this key; a key that nobody translated shows as itself. */
export function t(key) {
  const both = WORDS[key];
  return both === undefined ? key : both[spoken === "zh" ? 0 : 1];
}

/** The word of a value that comes over the wire, such as an event's name; itself where there is none. */
export const named = (prefix, name) => WORDS[`${prefix}_${name}`] ? t(`${prefix}_${name}`) : String(name ?? "");
