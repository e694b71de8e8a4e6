"""What MLflow's pages say of a study and of its trials, in Markdown; all that comes from users is escaped."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeps.core.text import brief, code_block, escaped, link, number, short_names, some_of, table
from sweeps.core.urls import store_options
from sweeps.search import Best
from sweeps.tracking.ui import PARENT, Pages

__all__ = ["NUM_LEADERS", "StudyFacts", "study_text"]

NUM_LEADERS = 5
_MOST_COLUMNS = 8  # parameters in the table of the best
_MOST_SEARCHED = 20
_LONGEST = 300  # characters of what is searched of one key


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the description of a study tells.

    Attributes:
        state: running, complete, failed or interrupted.
        objectives: The metrics that it is judged by, each with `maximize` or `minimize`; the leading one first.
        keys: What is searched.
        searched: The text of the set of values, by the name that it has in the space.
        method: The sampler and the pruner, in words.
        num_trials: The total that it is to reach.
        counts: How many trials there are of each state.
        num_finished: How many of them count against the total.
        leaders: The best few, or of several objectives the first few of the Pareto front.
        num_front: How many trials the Pareto front has.
        store_dir: The store, and `uri` the record's address if it lies elsewhere.
        report: The artifact that is the report, once there is one.
    """

    name: str
    state: str
    objectives: Mapping[str, str]
    keys: tuple[str, ...]
    searched: Mapping[str, str]
    method: str
    num_trials: int
    counts: Mapping[str, int]
    num_finished: int
    leaders: tuple[Best, ...]
    num_front: int
    store_dir: Path
    uri: str | None = None
    report: str | None = None


def study_text(facts: StudyFacts, pages: Pages) -> str:
    """Describe a study: how far it is, the best trials, what is searched and by what, and what to type."""
    return "\n\n".join(
        part
        for part in (
            _progress(facts, pages),
            _links(facts, pages),
            _leaders(facts, pages),
            _searched(facts),
            _commands(facts),
        )
        if part
    )


def _progress(facts: StudyFacts, pages: Pages) -> str:
    others = [f"{facts.counts[s]} {s}" for s in ("pruned", "failed", "interrupted") if facts.counts.get(s)]
    of_them = f" ({', '.join(others)})" if others else ""
    trials = f"{facts.num_finished} of {facts.num_trials} trials{of_them}"
    state = "" if facts.state in ("running", "complete") else f"{facts.state.capitalize()}: "
    if not facts.leaders:
        return f"{state}{trials}, none of them complete{' so far' if facts.state == 'running' else ''}."
    so_far = " so far" if facts.state == "running" else ""
    if len(facts.objectives) > 1:
        return f"{state}{trials}, **{facts.num_front} on the Pareto front{so_far}**."
    best = facts.leaders[0]
    (metric,) = facts.objectives
    trial = link(f"trial {best.number}", pages.run(best.number))
    return f"{state}{trials}, **best{so_far}: {trial}, {escaped(metric)} = {number(best.value)}**."


def _links(facts: StudyFacts, pages: Pages) -> str:
    links = [
        link("All trials, best first", pages.study(facts.name)),
        link("Charts", pages.study(facts.name, is_chart=True)),
    ]
    if facts.report is not None:
        links.append(link("Report", pages.artifact(PARENT, facts.report)))
    return " · ".join(links)


def _leaders(facts: StudyFacts, pages: Pages) -> str:
    if not facts.leaders:
        return ""
    names = short_names(facts.keys)
    keys = [key for key in facts.keys if any(key in best.values for best in facts.leaders)][:_MOST_COLUMNS]
    header = ["trial", *map(escaped, facts.objectives), *(escaped(names[key]) for key in keys)]
    rows = [
        [
            link(escaped(f"#{best.number}"), pages.run(best.number)),
            *map(number, best.objectives),
            *(escaped(brief(number(best.values[key]))) if key in best.values else "" for key in keys),
        ]
        for best in facts.leaders
    ]
    return table(header, rows)


def _searched(facts: StudyFacts) -> str:
    judged = ", ".join(f"{direction} {escaped(metric)}" for metric, direction in facts.objectives.items())
    searched = [f"{escaped(key)} = {escaped(brief(text, _LONGEST))}" for key, text in facts.searched.items()]
    return f"Searched to {judged}, by {escaped(facts.method)}: {some_of(searched, _MOST_SEARCHED)}."


def _commands(facts: StudyFacts) -> str:
    where = store_options(facts.store_dir, facts.uri)
    study, best = shlex.quote(facts.name), shlex.quote(f"best:{facts.name}")
    more = "" if facts.num_finished < facts.num_trials else f" study.num_trials={2 * facts.num_trials}"
    return code_block(
        [
            f"lightsweep compare {study} --top 10{where}",
            f"lightsweep show {best}{where}",
            f"lightsweep resume {study}{store_options(facts.store_dir)}{more}",
        ]
    )
