"""Normalisation layers, in predict and train mode."""

from __future__ import annotations

from tests.cases.case import Case, positive, real

BATCH = ("BatchNorm", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU")
STATES = (positive(3), real(3), real(3), positive(3))  # gamma, beta, moving mean, moving variance
WRT = (0, 1, 2)
V1 = {"fix_gamma": False}


def _batch(op: str, *shape: int, train: bool = False, **attrs: object) -> Case:
    key = {"key": "bn"} if op == "_contrib_SyncBatchNorm" else {}
    dtype = "float64" if op == "BatchNorm" else "float32"
    inputs = (real(*shape), *STATES)
    first = "wrong" if op == "_contrib_BatchNormWithReLU" and not train else ""  # forgets the kink outside train mode
    table = {"fix_gamma": False, **attrs, **key}
    return Case(op, inputs, table, wrt=WRT, outputs=(0,), train=train, dtype=dtype, first=first)


ROWS = (
    [_batch(op, 2, 3, 2, 1, train=train) for op in BATCH for train in (False, True)]
    + [_batch(op, 2, 3, 2, 2, train=True, eps=0.01) for op in BATCH]
    + [
        _batch("BatchNorm", 4, 3, 2, train=True),
        _batch("BatchNorm", 4, 3),
        _batch("BatchNorm", 4, 3, train=True),
        _batch("BatchNorm", 4, 3, train=True, fix_gamma=True),
        _batch("BatchNorm", 4, 3, train=False, fix_gamma=True),
        _batch("BatchNorm", 4, 3, train=True, use_global_stats=True),
        _batch("BatchNorm", 2, 2, 3, train=True, axis=2),
        _batch("BatchNorm", 4, 3, 2, train=True, output_mean_var=True),
        Case("BatchNorm_v1", (real(2, 3, 2, 2), *STATES), V1, wrt=WRT, outputs=(0,), train=True, dtype="float32"),
        Case("BatchNorm_v1", (real(2, 3, 2, 2), *STATES), V1, wrt=WRT, outputs=(0,), dtype="float32"),
        Case("LayerNorm", (real(2, 4), positive(4), real(4)), outputs=(0,)),
        Case("LayerNorm", (real(2, 3, 4), positive(3), real(3)), {"axis": 1, "eps": 0.01}, outputs=(0,)),
        Case("LayerNorm", (real(2, 4), positive(4), real(4)), {"output_mean_var": True}, outputs=(0,)),
        Case("InstanceNorm", (real(2, 3, 4), positive(3), real(3)), outputs=(0,), dtype="float32"),
        Case("InstanceNorm", (real(2, 2, 2, 3), positive(2), real(2)), {"eps": 0.01}, outputs=(0,), dtype="float32"),
        Case("GroupNorm", (real(2, 4, 3), positive(2), real(2)), {"num_groups": 2}, outputs=(0,)),
        Case("GroupNorm", (real(2, 2, 2, 2), positive(1), real(1)), {"num_groups": 1, "eps": 0.01}, outputs=(0,)),
        Case("L2Normalization", (real(2, 3, 2),)),
        Case("L2Normalization", (real(2, 3, 2),), {"mode": "channel", "eps": 0.01}),
        Case("L2Normalization", (real(2, 3, 2),), {"mode": "spatial"}),
        Case(
            "LRN",
            (real(1, 4, 2, 2),),
            {"nsize": 3, "alpha": 0.3, "beta": 0.6, "knorm": 1.5},
            outputs=(0,),
            dtype="float32",
        ),
        Case("LRN", (real(1, 5, 2, 2),), {"nsize": 5}, outputs=(0,), dtype="float32"),
    ]
)
