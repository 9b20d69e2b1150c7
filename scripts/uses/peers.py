"""Numbers of curvlinops 3.0.1 and laplace-torch 0.3 (PyTorch 2.13, float64) on three small nets, for the tests.

    python scripts/uses/peers.py tests/uses/peers.json     in an environment of its own, with these three installed

The file holds nets, data and numbers: tests/operators/test_kfac.py and tests/uses/test_laplace.py compare with them.
Parameters are in PyTorch's order, which is Gluon's: weight, bias, layer by layer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from curvlinops import EKFACLinearOperator, FisherType, KFACLinearOperator
from laplace import Laplace
from laplace.curvature import CurvlinopsGGN
from torch import nn

PRIOR, NOISE, SHIFT = 0.7, 0.3, 0.1


class Sequence(nn.Module):
    """A dense layer at every step, the mean over steps, a dense layer."""

    def __init__(self):
        super().__init__()
        self.step, self.last = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.step(x)).mean(dim=1))


def nets() -> dict:
    conv = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3))
    return {
        "dense": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (7, 4)),
        "conv": (conv, (7, 2, 5, 5)),
        "sequence": (Sequence(), (7, 4, 3)),
    }


def flat(vector) -> list:
    return [float(f"{number:.12g}") for number in np.asarray(vector, np.float64).ravel()]


def kfac(net, x, y, v) -> dict:
    found = {}
    parameters = [p for p in net.parameters() if p.requires_grad]
    for matrix, kind in (("ggn", FisherType.TYPE2), ("empirical", FisherType.EMPIRICAL)):
        for sharing in ("expand", "reduce"):
            for biases in ("joint", "separate"):
                for corrected, operator in ((False, KFACLinearOperator), (True, EKFACLinearOperator)):
                    made = operator(net, nn.CrossEntropyLoss(), parameters, [(x[:4], y[:4]), (x[4:], y[4:])],
                                    fisher_type=kind, kfac_approx=sharing,
                                    separate_weight_and_bias=biases == "separate")
                    dense = (made @ torch.eye(len(v))).numpy()
                    found[f"{matrix} {sharing} {biases} {'ekfac' if corrected else 'kfac'}"] = {
                        "trace": float(np.trace(dense)),
                        "logdet": float(np.linalg.slogdet(dense + SHIFT * np.eye(len(v)))[1]),
                        "product": flat(dense @ v),
                    }
    return found


def laplace(net, likelihood: str, x, y, test) -> dict:
    found = {}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))
    for where, structure in (("all", "full"), ("last_layer", "full"), ("all", "kron")):
        options = {"sigma_noise": NOISE} if likelihood == "regression" else {}
        posterior = Laplace(net, likelihood, where, structure, prior_precision=PRIOR, backend=CurvlinopsGGN, **options)
        posterior.fit(loader)
        mean, variance = posterior._glm_predictive_distribution(test)
        entry = {"evidence": float(posterior.log_marginal_likelihood()), "mean": flat(mean.detach()),
                 "variance": flat(variance.detach())}
        if likelihood == "classification":
            entry["probit"] = flat(posterior(test, link_approx="probit").detach())
        found[f"{where} {structure}"] = entry
    return found


def main(path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(0)
    results = {"shift": SHIFT, "prior": PRIOR, "noise": NOISE, "nets": {}}
    for name, (net, shape) in nets().items():
        x, y = torch.tensor(rng.normal(size=shape).round(6)), torch.tensor(rng.integers(0, 3, shape[0]))
        size = sum(p.numel() for p in net.parameters())
        w, v = (rng.normal(size=size).round(6) for _ in range(2))
        nn.utils.vector_to_parameters(torch.tensor(w), net.parameters())
        entry = {"shape": shape, "x": flat(x), "y": flat(y), "w": flat(w), "v": flat(v), "kfac": kfac(net, x, y, v)}
        if name == "dense":
            test = torch.tensor(rng.normal(size=(3, *shape[1:])).round(6))
            target = torch.tensor(rng.normal(size=(shape[0], 3)).round(6))
            entry.update(test=flat(test), target=flat(target))
            entry["classification"] = laplace(net, "classification", x, y, test)
            entry["regression"] = laplace(net, "regression", x, target, test)
        results["nets"][name] = entry
    path.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
