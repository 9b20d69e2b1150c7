"""The benchmarks' results as Markdown tables."""

from __future__ import annotations

from typing import Any, Callable

from cases import DIRECTIONS, TITLES

STARTUP = {
    "resnet50": "ResNet-50, 3x64x64",
    "inception": "Inception-v3, 3x299x299",
    "bert": "Transformer encoder 12 x 768, 128 tokens",
}
ROWS = {
    "gradient": "gradient",
    "hvp": "H v from scratch",
    "hvp kept": "H v, parameters kept",
    "hvp block": f"H v, each of {DIRECTIONS} at once",
    "ggn": "G v from scratch",
    "ggn kept": "G v, parameters kept",
}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("| --- ", "|---").replace("---|", "---|")


def _seconds(result: dict, side: str, function: str) -> float | None:
    """Of one product."""
    found = result["seconds"].get(f"{side} {function}")
    return found / DIRECTIONS if found is not None and function == "hvp block" else found


def _ratio(above: float | None, below: float | None) -> str:
    return "n/a" if above is None or not below else f"{above / below:.2f}"


def costs(results: dict[str, dict]) -> str:
    """One row per net: what hessmx's products cost, in gradients of its own."""
    rows = []
    for case, result in results.items():
        gradient = _seconds(result, "hessmx", "gradient")
        ratios = [_ratio(_seconds(result, "hessmx", name), gradient) for name in ROWS if name != "gradient"]
        rows.append([TITLES[case], "n/a" if gradient is None else f"{1e3 * gradient:.2f}", *ratios])
    return _table(["net", "gradient, ms", *[title for name, title in ROWS.items() if name != "gradient"]], rows)


def products(results: dict[str, dict]) -> str:
    """One row per net and question: milliseconds of each library, and theirs over hessmx's."""
    rows = []
    for case, result in results.items():
        for name, title in ROWS.items():
            found = {side: _seconds(result, side, name) for side in ("hessmx", "torch", "jax")}
            times = ["n/a" if s is None else f"{1e3 * s:.2f}" for s in found.values()]
            ratios = [_ratio(found[side], found["hessmx"]) for side in ("torch", "jax")]
            rows.append([TITLES[case] if name == "gradient" else "", title, *times, *ratios])
    return _table(["net", "", "hessmx, ms", "PyTorch", "JAX", "PyTorch / hessmx", "JAX / hessmx"], rows)


def differences(results: dict[str, dict]) -> str:
    """One row per net: the largest relative distance of a library's gradient and products from hessmx's."""
    rows = []
    for case, result in results.items():
        cells = []
        for side in ("torch", "jax"):
            for kind in ("gradient", "hvp", "ggn"):
                names = [name for name in result["difference"] if name.startswith(f"{side} {kind}")]
                worst = max((result["difference"][name] for name in names), default=None)
                cells.append("n/a" if worst is None else f"{worst:.0e}")
        rows.append([TITLES[case], *cells])
    return _table(["net", *[f"{side}, {kind}" for side in ("PyTorch", "JAX") for kind in ("g", "H v", "G v")]], rows)


def memory(results: dict[str, dict]) -> str:
    """One row per net: peaks beyond what the process held before, and of whole processes."""
    rows = []
    for case, result in results.items():
        own, torch = result.get("hessmx", {}), result.get("torch", {})
        get: Callable[[dict, str, str], Any] = lambda side, name, what: side.get(name, {}).get(what)  # noqa: E731
        cells = [f"{get(own, name, 'beyond'):.0f}" if name in own else "n/a" for name in ("gradient", "hvp", "both")]
        for side, name, what in (
            (own, "hvp", "beyond"), (own, "both", "beyond"), (own, "hvp", "process"), (torch, "hvp", "beyond"),
        ):  # fmt: skip
            cells.append(_ratio(get(side, name, what), get(side, "gradient", what)))
        rows.append([TITLES[case], *cells])
    head = ["net", "gradient, MiB", "H v", "all three", "H v / gradient", "all three / gradient"]
    return _table([*head, "H v / gradient, whole processes", "PyTorch retained / gradient"], rows)


def startup(results: dict[str, dict]) -> str:
    """One row per net."""
    rows = []
    for name, found in results.items():
        parts = [f"{found[key]:.2f}" for key in ("curvature", "first", "later")]
        total = f"{found['curvature'] + found['first']:.2f}"
        rows.append([STARTUP[name], f"{found['parameters'] / 1e6:.1f}", *parts[:2], total, parts[2]])
    head = ["net", "parameters, 10^6", "Curvature, s", "first H v, s", "together, s", "a later H v, s"]
    return _table(head, rows)


def peers(results: dict) -> str:
    """One row per net, question and library."""
    lines = ["| net | question | library | products | seconds | true error |", "|---|---|---|---|---|---|"]
    for name, found in results.items():
        for question in ("eigenvalues", "trace", "density"):
            for library, answers in found["results"].items():
                a = answers[question]
                cells = a.get("refused") or f"{a['products']} | {a['seconds']:.2f} | {a['error']:.1e}"
                lines.append(f"| {name} | {question} | {library} | {cells} |" + " | |" * ("refused" in a))
    return "\n".join(lines)
