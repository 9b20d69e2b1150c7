"""The benchmarks' results as Markdown tables."""

from __future__ import annotations

from cases import TITLES


def _ratios(result: dict) -> dict[str, float]:
    """The ratios that matter."""
    s, peak = result["seconds"], result["peak"]
    ratio = {
        "Hv / gradient": ("hessmx hvp", "hessmx gradient"),
        "PyTorch / hessmx": ("torch hvp", "hessmx hvp"),
        "PyTorch retained / hessmx": ("torch hvp retained", "hessmx hvp"),
        "JAX / hessmx": ("jax hvp", "hessmx hvp"),
        "PyTorch gradient / hessmx gradient": ("torch gradient", "hessmx gradient"),
    }
    rows = {name: s[a] / s[b] for name, (a, b) in ratio.items() if a in s and b in s}
    rows["peak Hv / peak gradient"] = peak["hvp"] / peak["gradient"]
    return rows


def products(results: dict[str, dict]) -> str:
    """One row per net."""
    columns = ["Hv / gradient", "PyTorch / hessmx", "PyTorch retained / hessmx", "JAX / hessmx"]
    columns.append("peak Hv / peak gradient")
    lines = ["| net | Hv, ms | " + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) + 1)]
    for case, result in results.items():
        ratios = _ratios(result)
        cells = [f"{ratios[c]:.2f}" if c in ratios else "n/a" for c in columns]
        lines.append(f"| {TITLES[case]} | {1e3 * result['seconds']['hessmx hvp']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
