"""One net of each family of gluon.model_zoo.vision; scripts/zoo.py checks all of them."""

from __future__ import annotations

import pytest

from hessmx._mxnet import mx
from scripts.zoo import NAMES, TOLERANCE, check

SMALL = ("resnet18_v1", "resnet18_v2", "vgg11_bn", "alexnet", "mobilenet0.25", "mobilenetv2_0.25")


@pytest.mark.parametrize("name", SMALL)
def test_products(name: str) -> None:
    assert check(name).error < TOLERANCE


def test_batch_statistics() -> None:
    assert check("resnet18_v2", train=True, samples=4).error < TOLERANCE


def test_names_are_those_of_the_zoo() -> None:
    with pytest.raises(ValueError) as caught:
        mx.gluon.model_zoo.vision.get_model("none")
    assert sorted(str(caught.value).split("\n\t")[1:]) == sorted(NAMES)
