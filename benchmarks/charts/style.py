"""The colours of charts, light and dark. Texts have a contrast of at least 4.5 on both papers, marks of at least 3."""

ROLES = {"teacher": "diamond", "student": "circle", "control": "square", "baseline": "triangle"}
"""A model's role and its mark."""

LIGHT = {
    "page": "#f6f7f9",
    "paper": "#ffffff",
    "ink": "#1b2129",
    "soft": "#535e6b",
    "line": "#d9dee5",
    "grid": "#e6e9ee",
    "picked": "#fff3d1",
    "ring": "#b3261e",
    "link": "#0b5cad",
    "teacher": "#6f4fc4",
    "student": "#0b7d69",
    "control": "#a85a08",
    "baseline": "#66707d",
    "good": "#0b6b5a",
    "bad": "#b3261e",
    "now": "#2f6fbd",
}
DARK = {
    "page": "#11151a",
    "paper": "#191f26",
    "ink": "#e6e9ee",
    "soft": "#a7b1be",
    "line": "#2f3843",
    "grid": "#29313a",
    "picked": "#3a3216",
    "ring": "#ff8a80",
    "link": "#8ab8ff",
    "teacher": "#b8a3f5",
    "student": "#45cdb3",
    "control": "#f2a65a",
    "baseline": "#9aa5b3",
    "good": "#45cdb3",
    "bad": "#ff8a80",
    "now": "#7fb0f0",
}

SERIES = {
    "light": ("#0062a3", "#b34700", "#00734f", "#a6407f", "#8a5a00", "#2a7fb8", "#1b2129"),
    "dark": ("#56b4e9", "#ff8f4d", "#2fc795", "#e29ac4", "#e6b030", "#9fd4f5", "#e6e9ee"),
}
"""Lines without a role: Okabe and Ito's hues, which colour-blind readers tell apart, darker or lighter for contrast."""

CHART_RULES = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.number{fill:var(--soft)}.name{font-weight:600}
.grid{stroke:var(--grid)}.zero{stroke:var(--soft)}.front{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:2 3}
.limit{stroke:var(--ring);stroke-width:1.5;stroke-dasharray:6 4}
.dashed{stroke-dasharray:6 4}.level{stroke:var(--baseline);stroke-dasharray:5 4}
.hit{fill:transparent}.halo{fill:none;stroke:transparent;stroke-width:2.5}.halo.ring{stroke:var(--ring)}
.whisker{stroke-width:1.6}.faint{opacity:.45}.cross{fill:none;stroke-width:2}
text.name,text.number{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.short{display:none}@container(max-width:30rem){.long{display:none}.short{display:inline}}
.wide{opacity:.22}.middle{opacity:.35}.core{opacity:.75}.median{stroke:var(--ink);stroke-width:2.5}
rect.wide,rect.middle,rect.core{stroke:none}rect.part{stroke:var(--paper);stroke-width:1}
"""


def _variables(colours: dict[str, str], lines: tuple[str, ...]) -> str:
    numbered = {f"s{number}": colour for number, colour in enumerate(lines)}
    return "".join(f"--{name}:{colour};" for name, colour in (colours | numbered).items())


def style(root: str) -> str:
    """The rules of charts, their colours set at the selector `root`."""
    painted = [*ROLES, "good", "bad", "now", "soft", *(f"s{number}" for number in range(len(SERIES["light"])))]
    rules = "".join(f".{name}{{fill:var(--{name});stroke:var(--{name})}}text.{name}{{stroke:none}}" for name in painted)
    return (
        f"{root}{{color-scheme:light dark;{_variables(LIGHT, SERIES['light'])}}}"
        f"@media(prefers-color-scheme:dark){{{root}{{{_variables(DARK, SERIES['dark'])}}}}}"
        f"@media print{{{root}{{{_variables(LIGHT, SERIES['light'])}}}}}" + CHART_RULES.replace("\n", "") + rules
    )


FILE_STYLE = style("svg") + ".paper{fill:var(--paper)}"
"""For a drawing that is a file of its own."""
