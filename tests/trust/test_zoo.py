"""One net of each family of gluon.model_zoo.vision; scripts/zoo.py checks all of them."""

from __future__ import annotations

import sys

import pytest

from hessmx._mxnet import mx
from scripts import zoo
from scripts.zoo import NAMES, TOLERANCE, TOLERANCE32, Row, check

SMALL = ("resnet18_v1", "vgg11_bn", "alexnet", "mobilenet0.25", "mobilenetv2_0.25")


@pytest.mark.parametrize("name", SMALL)
def test_products(name: str) -> None:
    row = check(name)
    assert row.right and row.error < TOLERANCE and row.error32 < TOLERANCE32, row


def test_batch_statistics() -> None:
    row = check("resnet18_v2", train=True)
    assert row.right, row


def test_names_are_those_of_the_zoo() -> None:
    with pytest.raises(ValueError) as caught:
        mx.gluon.model_zoo.vision.get_model("none")
    assert sorted(str(caught.value).split("\n\t")[1:]) == sorted(NAMES)


def test_rows_are_kept_and_not_run_again(monkeypatch, tmp_path, capsys) -> None:
    """Also after a kill in the middle of a line."""
    asked = []

    def checked(name, train):
        asked.append((name, train))
        return Row(name, "train" if train else "predict", 32, 10, 1e-9, 2e-3 if train else 1e-6, 1e-7, 1.0, 2.0, 1.5)

    monkeypatch.setattr(zoo, "check", checked)
    rows = tmp_path / "rows.jsonl"
    for nets, code in ((1, 1), (2, 1)):
        monkeypatch.setattr(sys, "argv", ["zoo.py", *SMALL[:4], "--rows", str(rows), "--nets", str(nets)])
        assert zoo.main() == code
        with rows.open("a") as file:
            file.write('{"name": "cut')
            file.write("\n")
    assert asked == [(name, train) for name in SMALL[:3] for train in (False, True)]
    out = capsys.readouterr().out
    assert out.count("WRONG") == 1 + 3 and "6 rows, 3 wrong" in out
