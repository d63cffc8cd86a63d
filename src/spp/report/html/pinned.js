// Where a point of the plot comes from: one card per member.

function pin(panel, state, point, description) {
  const [title, ...facts] = description;
  const close = button("close", () => panel.replaceChildren(), { class: "close" });
  const list = facts.map((fact) => (Array.isArray(fact) ? definition(...fact) : html("p", {}, fact)));
  const head = html("div", { class: "bar" }, html("h3", {}, `${title}, ${point.point.asked}`), close);
  const cards = (point.members ?? []).map((member) => memberCard(member, state));
  panel.replaceChildren(
    html(
      "div",
      { class: "pinned" },
      head,
      html("dl", { class: "facts" }, ...list),
      html("div", { class: "cards" }, ...cards),
    ),
  );
  head.scrollIntoView({ block: "nearest" });
}

function definition(name, ...values) {
  return html("div", {}, html("dt", {}, name), html("dd", {}, ...values));
}

function memberCard(member, state) {
  const shared = (place) => data.pool[place];
  const valueOf = (metric) => {
    return isMeasured(member, metric)
      ? `${member.metrics[metric.id].toFixed(metric.digits)} ${metric.unit}`.trimEnd()
      : "not measured";
  };
  const facts = [
    ...state.panel.metrics.map((metric) => definition(metric.name, valueOf(metric))),
    definition("FLOPs", size(member.macs)),
    definition("params", size(member.params)),
    definition("epochs", `${member.epochs_search} search and walk, ${member.epochs_finetune} finetuning`),
    definition("time", `${duration(member.search_seconds)} search, ${duration(member.finetune_seconds)} finetuning`),
    definition("device", shared(member.device)),
    definition("commit", html("code", {}, shared(member.git_commit) ?? "unknown")),
    definition("sweep", `${shared(member.sweep)}, point ${shared(member.point)}`),
  ];
  const config = Object.fromEntries(Object.entries(member.config).map(([name, place]) => [name, shared(place)]));
  const command = shared(member.command);
  return html(
    "article",
    {},
    html("h4", {}, `seed ${member.seed}: ${valueOf(state.metric)}`),
    html("dl", {}, ...facts),
    html("div", { class: "command" }, html("code", {}, command), copyButton(command)),
    html("ul", { class: "stages" }, ...member.stages.map(([kind, key, place]) => stageLink(kind, key, shared(place)))),
    configDetails(`config of the ${member.member_kind} stage`, config),
    configDetails("settings of the method", shared(member.method_config)),
  );
}

function stageLink(kind, key, folder) {
  const tag = folder.link === null ? "span" : "a";
  return html("li", {}, html(tag, { href: folder.link, title: folder.path }, html("code", {}, `${kind}/${key}`)));
}

function configDetails(title, config) {
  const shown = JSON.stringify(config, null, 2);
  return html("details", {}, html("summary", {}, title), copyButton(shown), html("pre", {}, shown));
}
