"""A machine's declared graph as Mermaid, DOT, or a drawing in box characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from statemq.cli.escape import clean

Graph = Mapping[str, Any]


class Edge(NamedTuple):
    source: str
    label: str
    target: str
    stays: bool
    """The instance stays as it is: nothing is entered anew."""


def edges(graph: Graph) -> list[Edge]:
    """One for each source state and target of each transition, in declaration order."""
    found = []
    for transition in graph["transitions"]:
        label = transition["name"] + (f" [{transition['guard']}]" if transition.get("guard") else "")
        for source in transition["source"]:
            targets = transition["target"]
            if targets is None:
                found.append(Edge(source, label, source, True))
            else:
                found += [Edge(source, label, target, False) for target in targets]
    return found


def text(graph: Graph) -> str:
    """Each state as a box, with what leaves it below."""
    leaving = edges(graph)
    lines = [clean(graph["name"])]
    for state in graph["states"]:
        kinds = {"initial": [graph["initial"]], "final": graph["final"], "legacy": graph.get("legacy", ())}
        marks = [word for word, states in kinds.items() if state in states]
        lines += ["", *_box(clean(state), ", ".join(marks), [edge for edge in leaving if edge.source == state])]
    return "\n".join(lines)


def _box(state: str, marks: str, leaving: list[Edge]) -> list[str]:
    bar = "─" * (len(state) + 2)
    foot = f"╰┬{bar[1:]}╯" if leaving else f"╰{bar}╯"
    lines = [f"╭{bar}╮", f"│ {state} │" + (f"  {marks}" if marks else ""), foot]
    wide = max((len(clean(edge.label)) for edge in leaving), default=0)
    for edge in leaving:
        corner = "└" if edge is leaving[-1] else "├"
        arrow = "─" * (wide - len(clean(edge.label)) + 2)
        end = "↺ stays" if edge.stays else f"▶ {clean(edge.target)}"
        lines.append(f" {corner}─ {clean(edge.label)} {arrow}{end}")
    return lines


def mermaid(graph: Graph) -> str:
    """A ``stateDiagram-v2``."""
    lines = ["stateDiagram-v2", f"    [*] --> {graph['initial']}"]
    lines += [f"    {edge.source} --> {edge.target} : {_mermaid(edge.label)}" for edge in edges(graph)]
    left = {name for edge in edges(graph) for name in (edge.source, edge.target)} | {graph["initial"], *graph["final"]}
    lines += [f"    {state}" for state in graph["states"] if state not in left]
    lines += [f"    {state} --> [*]" for state in graph["final"]]
    return "\n".join(lines)


def _mermaid(label: str) -> str:
    """Mermaid ends a label at ``;`` and reads ``:`` and ``#`` as its own."""
    return "".join(f"#{ord(char)};" if char in ":;#<>{}%" else char for char in clean(label))


def dot(graph: Graph) -> str:
    """A Graphviz digraph."""
    lines = [f"digraph {_quote(graph['name'])} {{", "    rankdir=LR;", "    node [shape=box, style=rounded];", '    "" [shape=point];']
    for state in graph["states"]:
        lines.append(f"    {_quote(state)}" + (" [peripheries=2];" if state in graph["final"] else ";"))
    lines.append(f'    "" -> {_quote(graph["initial"])};')
    for edge in edges(graph):
        dashed = ", style=dashed" if edge.stays else ""
        lines.append(f"    {_quote(edge.source)} -> {_quote(edge.target)} [label={_quote(edge.label)}{dashed}];")
    return "\n".join([*lines, "}"])


def _quote(text: str) -> str:
    escaped = clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
