"""The other side of influence.py: EK-FAC influence scores by kronfluence on the same dense net; prints JSON.

    python scripts/bench/side_kronfluence.py problem.npz        (needs torch and kronfluence)
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch.nn.functional import cross_entropy

torch.set_num_threads(1)


class Classification(Task):
    def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
        x, y = batch
        z = model(x)
        if sample:
            with torch.no_grad():
                y = torch.multinomial(z.softmax(-1), 1).flatten()
        return cross_entropy(z, y, reduction="sum")

    def compute_measurement(self, batch: Any, model: Any) -> Any:
        return self.compute_train_loss(batch, model)


def main(path: str) -> None:
    with np.load(path) as file:
        given = {name: torch.tensor(file[name]) for name in file.files}
    layers: list[Any] = []
    for i in range(int(given["layers"])):
        weight = given[f"weight{i}"]
        layers += [torch.nn.Linear(weight.shape[1], weight.shape[0]), torch.nn.Tanh()]
        layers[-2].weight.data, layers[-2].bias.data = weight, given[f"bias{i}"]
    task = Classification()
    net = prepare_model(torch.nn.Sequential(*layers[:-1]), task)
    train, test = (torch.utils.data.TensorDataset(given[f"{w}x"], given[f"{w}y"].long()) for w in ("", "test_"))
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("bench", net, task, cpu=True, output_dir=folder, disable_tqdm=True, disable_model_save=True,
                            log_level=logging.ERROR)
        began, cpu = time.perf_counter(), time.process_time()
        kind = FactorArguments(strategy="ekfac")
        analyzer.fit_all_factors("ekfac", train, per_device_batch_size=2048, factor_args=kind)
        fitted, fitted_cpu = time.perf_counter(), time.process_time()
        analyzer.compute_pairwise_scores("scores", "ekfac", test, train, per_device_query_batch_size=len(test),
                                         per_device_train_batch_size=2048,
                                         score_args=ScoreArguments(damping_factor=None))
        ended, ended_cpu = time.perf_counter(), time.process_time()
        scores = analyzer.load_pairwise_scores("scores")["all_modules"].mean(0).numpy()
    print(json.dumps({"fit": fitted - began, "scores": ended - fitted, "fit, processor": fitted_cpu - cpu,
                      "scores, processor": ended_cpu - fitted_cpu, "values": scores.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1])
