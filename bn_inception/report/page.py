"""`report.html`: everything about some runs on one page that needs nothing but itself."""

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from bn_inception.record.environment import command_line
from bn_inception.report.claims import Evidence, Verdict, by_statement
from bn_inception.report.comparison import Figure3
from bn_inception.report.evaluations import Evaluation
from bn_inception.report.figures import accuracy_by_crops_svg, figure2_svg
from bn_inception.report.measures import Decision
from bn_inception.report.runs import Run
from bn_inception.report.tables import Table, figure3, figure4
from bn_inception.report.verdicts import claims_table, shared_command, shared_path

# Nothing is fetched, and nothing runs: no script, no image, no font from elsewhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --rule: #d5d5d5; --soft: #666; --shade: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --rule: #444; --soft: #aaa; --shade: #222; }
  svg { background: #fff; border-radius: 4px; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin-top: 2.4rem; }
p.lead, .note { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.7rem 0.3rem 0; }
th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
pre { background: var(--shade); padding: 0.6rem; overflow-x: auto; font-size: 0.8rem; }
details { margin: 0.3rem 0; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; margin: 0.4rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.verdict { display: inline-block; min-width: 7.5rem; font-weight: 600; }
.holds { color: #00795a; }
.not { color: #c04000; }
.undecided { color: #86690a; }
.untested { color: var(--soft); }
@media (prefers-color-scheme: dark) { .holds { color: #3c9; } .not { color: #f84; } }
"""
_CLASSES = {
    Decision.holds: "holds",
    Decision.does_not_hold: "not",
    Decision.undecided: "undecided",
    Decision.not_tested: "untested",
}


def report_page(
    comparison: Figure3,
    runs: Sequence[Run],
    *,
    verdicts: Sequence[Verdict] = (),
    evaluations: Sequence[tuple[str, Evaluation]] = (),
) -> str:
    """Write the page.

    Args:
        comparison: of `runs`.
        runs: those compared.
        verdicts: of `judge`; none for no section on them.
        evaluations: (name, evaluation) for Figure 4 and the accuracy by crops.

    Returns:
        HTML that opens without a network. Absolute paths are shortened to their last part.
    """
    sections = [
        _section("Steps to accuracy (Figure 3)", _table(figure3(comparison))),
        _section("Validation accuracy by steps (Figure 2)", figure2_svg(runs, comparison)),
    ]
    errors = figure4(evaluations)
    if errors is not None:
        sections.append(_section(errors.title, _table(errors)))
    by_crops = accuracy_by_crops_svg(evaluations)
    if by_crops is not None:
        sections.append(_section("Accuracy by the number of crops", by_crops))
    if verdicts:
        table = claims_table(verdicts)
        claims = "".join(map(_statement, by_statement(verdicts)))
        lead = (
            _table(table) if len(table.header) > 4 else f'<p class="lead">{escape(table.lead)}</p>'
        )
        sections.append(_section("The paper's statements", lead + claims))
    sections.append(_section("Runs", "".join(map(_run, runs))))
    scales = ", ".join(sorted({run.summary.scale for run in runs}))
    data = ", ".join(sorted({run.summary.data or "unknown data" for run in runs}))
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Batch Normalization: {count}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>Batch Normalization, reproduced</h1>\n"
        f'<p class="lead">{escape(f"{count} at scale {scales} on {data}")}, beside Ioffe and '
        "Szegedy 2015 (arXiv 1502.03167).</p>\n"
        f"{''.join(sections)}</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n"


def _table(table: Table) -> str:
    lead = f'<p class="lead">{escape(table.lead)}</p>\n' if table.lead else ""

    def row(cells: Sequence[str], tag: str) -> str:
        written = []
        for column, cell in enumerate(cells):
            number = ' class="number"' if column in table.numbers and tag == "td" else ""
            written.append(f"<{tag}{number}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(written)}</tr>\n"

    body = "".join(row(cells, "td") for cells in table.rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    below = f'<ul class="note">{notes}</ul>\n' if notes else ""
    return (
        f'{lead}<div class="wide"><table>\n<thead>{row(table.header, "th")}</thead>\n'
        f"<tbody>{body}</tbody></table></div>\n{below}"
    )


def _statement(judged: Sequence[Verdict]) -> str:
    statement = judged[0].statement
    marks = "".join(
        f'<span class="verdict {_CLASSES[v.decision]}">{v.decision.value}</span> ' for v in judged
    )
    opened = any(verdict.decision is not Decision.not_tested for verdict in judged)
    return (
        f"<details{' open' if opened else ''}><summary>{marks}"
        f"{statement.number}. {escape(statement.claim)}</summary>\n<dl>"
        f"<dt>paper</dt><dd>{escape(statement.paper)} ({escape(statement.place)})</dd>"
        f"<dt>how</dt><dd>{escape(statement.measured)}</dd>"
        f"<dt>criterion</dt><dd>{escape(statement.criterion)}</dd></dl>\n"
        f"{''.join(map(_verdict, judged))}</details>\n"
    )


def _verdict(verdict: Verdict) -> str:
    commands = "\n".join(map(shared_command, verdict.commands))
    evidence = "".join(
        f"<li>{escape(entry.name)}: {escape(entry.says)} "
        f'<span class="note">{escape(_place(entry))}</span></li>'
        for entry in verdict.evidence
    )
    where = f" ({verdict.setting})" if verdict.setting else ""
    return (
        f"<p>{escape(f'{verdict.decision.value}{where}: {verdict.reason}')}</p>\n"
        + (f"<ul>{evidence}</ul>\n" if evidence else "")
        + (f"<p>What would help:</p><pre>{escape(commands)}</pre>\n" if commands else "")
    )


def _place(entry: Evidence) -> str:
    path = shared_path(entry.path)
    return "" if path == entry.name else f"({path})"


def _run(run: Run) -> str:
    summary = run.summary
    facts = {
        "recipe": " ".join([summary.recipe, *map(shared_option, run.overrides)]),
        "seed": str(summary.seed),
        "status": summary.status.value,
        "steps": f"{summary.step:,}",
        "parameters": None if summary.parameters is None else f"{summary.parameters:,}",
        "classes": None if summary.classes is None else f"{summary.classes:,}",
        "throughput": f"{summary.images_per_second:,.0f} images/s",
        **_environment(run.environment),
    }
    described = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text
    )
    config = f"<pre>{escape(_without_paths(run.config))}</pre>" if run.config else ""
    return (
        f"<details><summary>{escape(run.name)}</summary>\n"
        f"<dl>{described}</dl>\n{config}</details>\n"
    )


def shared_option(option: str) -> str:
    """A `key=value` whose absolute path, if it is one, is shortened to its last part."""
    return command_line(["", option])[1]


def _environment(environment: "dict[str, Any] | Any") -> dict[str, str]:
    """The parts of `environment.json` that tell a reader something, as text."""
    known: dict[str, str] = {}
    if isinstance(environment.get("command"), list):
        known["command"] = " ".join(map(str, environment["command"]))
    for key in ("git", "versions", "cpu", "gpus", "platform", "data_fingerprint"):
        value = environment.get(key)
        if isinstance(value, dict):
            known[key] = ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
        elif isinstance(value, list):
            known[key] = ", ".join(map(str, value))
        elif value is not None:
            known[key] = str(value)
    return known


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _without_paths(config: str) -> str:
    # "root: /home/jane/imagenet" says whose machine it was, and the last part what was used.
    return re.sub(r"(?m)^(\s*[\w-]+:\s*)(?:~?/)\S*?([^/\s]+)/?$", r"\1.../\2", config)
