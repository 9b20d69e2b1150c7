"""Loss operators. The *Output layers are "fake": their gradient is not that of what they return."""

from __future__ import annotations

from tests.cases.case import Case, index, literal, real

LABELS = index(3, high=4)
LAST = literal([[0.0, 1.0], [1.0, -1.0]])

OUTPUTS = [
    {},
    {"grad_scale": 0.5, "normalization": "batch"},
    {"use_ignore": True, "ignore_label": 1, "normalization": "valid"},
    {"smooth_alpha": 0.1},
    {"out_grad": True},
]

ROWS = [Case("SoftmaxOutput", (real(3, 4), LABELS), attrs, wrt=(0,), first="fake") for attrs in OUTPUTS] + [
    Case("SoftmaxOutput", (real(2, 3, 2), index(2, 2, high=3)), {"multi_output": True}, wrt=(0,), first="fake"),
    Case("SoftmaxOutput", (real(2, 2, 3), index(2, 2, high=3)), {"preserve_shape": True}, wrt=(0,), first="fake"),
    Case("LinearRegressionOutput", (real(3, 2), real(3, 2)), wrt=(0,), first="fake"),
    Case("LinearRegressionOutput", (real(3, 2), real(3, 2)), {"grad_scale": 0.5}, wrt=(0,), first="fake"),
    Case("LogisticRegressionOutput", (real(3, 2), real(3, 2)), wrt=(0,), first="fake"),
    Case("MAERegressionOutput", (real(3, 2), real(3, 2)), wrt=(0,), first="fake"),
    Case("SVMOutput", (real(3, 4), LABELS), wrt=(0,), first="fake"),
    Case("SVMOutput", (real(3, 4), LABELS), {"use_linear": True, "margin": 0.5}, wrt=(0,), first="fake"),
    Case("MakeLoss", (real(3, 2),), first="fake"),
    Case("MakeLoss", (real(3, 2),), {"grad_scale": 0.5, "normalization": "batch"}, first="fake"),
    Case("IdentityAttachKLSparseReg", (real(3, 2), real(2)), wrt=(0,), first="fake", train=True, dtype="float32"),
    Case("softmax_cross_entropy", (real(3, 4), LABELS)),
    Case("CTCLoss", (real(4, 2, 3), literal([[1.0, 2.0], [2.0, 0.0]])), outputs=(0,), dtype="float32"),
    Case(
        "CTCLoss",
        (real(4, 2, 3), literal([[0.0, 1.0], [1.0, -1.0]])),
        {"blank_label": "last"},
        outputs=(0,),
        dtype="float32",
    ),
    Case(
        "CTCLoss",
        (real(4, 2, 3), literal([[1.0, 2.0], [2.0, 1.0]]), literal([4.0, 3.0]), literal([2.0, 1.0])),
        {"use_data_lengths": True, "use_label_lengths": True},
        outputs=(0,),
        dtype="float32",
    ),
]
