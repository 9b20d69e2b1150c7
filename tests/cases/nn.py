"""Layers: dense, convolution, pooling, activation, dropout, resizing, softmax."""

from __future__ import annotations

from dataclasses import replace

from tests.cases.case import Array, Case, distinct, literal, positive, real

ACTIVATIONS = ("relu", "sigmoid", "tanh", "softrelu", "softsign")
GRID = literal([[[[-0.9, -0.1, 0.45], [-0.5, 0.1, 0.6]], [[-0.8, 0.2, 0.5], [-0.2, -0.6, 0.9]]]])
LEAKY = ("leaky", "elu", "gelu")

CONVOLUTIONS = [  # data, weight, attributes
    ((2, 2, 5), (3, 2, 3), {"kernel": (3,), "num_filter": 3}),
    ((2, 2, 5), (3, 2, 2), {"kernel": (2,), "num_filter": 3, "stride": (2,), "pad": (1,), "dilate": (2,)}),
    ((1, 2, 4, 4), (3, 2, 3, 3), {"kernel": (3, 3), "num_filter": 3, "pad": (1, 1)}),
    ((2, 2, 4, 3), (2, 2, 2, 3), {"kernel": (2, 3), "num_filter": 2, "stride": (2, 1), "pad": (0, 1)}),
    ((1, 4, 4, 3), (4, 2, 2, 2), {"kernel": (2, 2), "num_filter": 4, "num_group": 2}),
    ((1, 3, 4, 4), (3, 1, 3, 3), {"kernel": (3, 3), "num_filter": 3, "num_group": 3, "pad": (1, 1)}),
    ((1, 2, 4, 4), (3, 2, 1, 1), {"kernel": (1, 1), "num_filter": 3}),
    ((1, 1, 6, 6), (2, 1, 2, 2), {"kernel": (2, 2), "num_filter": 2, "dilate": (2, 2)}),
    ((1, 1, 3, 3, 3), (2, 1, 2, 2, 2), {"kernel": (2, 2, 2), "num_filter": 2, "pad": (1, 0, 0), "stride": (2, 1, 1)}),
]

DECONVOLUTIONS = [
    ((2, 2, 4), (2, 3, 3), {"kernel": (3,), "num_filter": 3, "stride": (2,), "pad": (1,), "adj": (1,)}),
    ((1, 2, 3, 3), (2, 2, 2, 2), {"kernel": (2, 2), "num_filter": 2, "stride": (2, 2)}),
    ((1, 2, 3, 3), (2, 2, 3, 3), {"kernel": (3, 3), "num_filter": 2, "pad": (1, 1), "dilate": (2, 2)}),
    ((1, 4, 3, 2), (4, 1, 2, 2), {"kernel": (2, 2), "num_filter": 2, "num_group": 2, "stride": (2, 1), "adj": (1, 0)}),
    ((1, 1, 3, 3), (1, 2, 3, 3), {"kernel": (3, 3), "num_filter": 2, "stride": (2, 2), "target_shape": (6, 6)}),
]

POOLINGS = [  # data, attributes
    ((2, 2, 6), {"kernel": (2,), "stride": (2,)}),
    ((2, 2, 5), {"kernel": (3,), "stride": (2,), "pad": (1,)}),
    ((1, 2, 4, 4), {"kernel": (2, 2), "stride": (2, 2)}),
    ((1, 2, 5, 4), {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1)}),
    ((1, 1, 6, 6), {"kernel": (3, 3), "stride": (2, 2), "pooling_convention": "full"}),
    ((1, 2, 4, 4), {"kernel": (1, 1), "global_pool": True}),
    ((1, 1, 3, 4, 3), {"kernel": (2, 2, 2), "stride": (1, 2, 1)}),
]

POOL_EXTRA = [
    Case(
        "Pooling",
        (real(1, 1, 4, 4),),
        {"kernel": (3, 3), "pool_type": "avg", "pad": (1, 1), "count_include_pad": False},
    ),
    Case("Pooling", (positive(1, 2, 4, 4),), {"kernel": (2, 2), "pool_type": "lp", "p_value": 2, "stride": (2, 2)}),
    Case("Pooling", (positive(1, 2, 4, 4),), {"kernel": (2, 2), "pool_type": "lp", "p_value": 3}),
    Case(
        "Pooling", (literal([[[[1.0, 1.0], [1.0, 0.0]]]]),), {"kernel": (2, 2), "pool_type": "max"}, wrt=(0,), kink=True
    ),
    Case("Pooling_v1", (distinct(1, 2, 4, 4),), {"kernel": (2, 2), "pool_type": "max", "stride": (2, 2)}),
    Case("Pooling_v1", (real(1, 2, 4, 4),), {"kernel": (2, 2), "pool_type": "avg", "stride": (2, 2)}),
]

SOFTMAX = [
    Case(op, (real(3, 4),), attrs)
    for op in ("softmax", "log_softmax", "softmin")
    for attrs in ({}, {"axis": 0}, {"axis": -1, "temperature": 2.5})
]


def _bias(attrs: dict) -> Array:
    return real(attrs["num_filter"])


_ROWS = (
    [Case("Activation", (distinct(3, 4),), {"act_type": kind}) for kind in ACTIVATIONS]
    + [Case("LeakyReLU", (distinct(3, 4),), {"act_type": kind}) for kind in LEAKY]
    + [Case("Convolution", (real(*x), real(*w), _bias(attrs)), attrs) for x, w, attrs in CONVOLUTIONS]
    + [Case("Convolution", (real(*x), real(*w)), {**attrs, "no_bias": True}) for x, w, attrs in CONVOLUTIONS[1:3]]
    + [Case("Deconvolution", (real(*x), real(*w)), {**attrs, "no_bias": True}) for x, w, attrs in DECONVOLUTIONS]
    + [
        Case("Deconvolution", (real(*x), real(*w), _bias(attrs)), {**attrs, "no_bias": False})
        for x, w, attrs in DECONVOLUTIONS[:2]
    ]
    + [
        Case("Pooling", (distinct(*x),), {**attrs, "pool_type": kind})
        for kind in ("max", "avg", "sum")
        for x, attrs in POOLINGS
    ]
    + POOL_EXTRA
    + SOFTMAX
    + [
        Case("Activation", (literal([-1.0, 0.0, 1.0]),), {"act_type": "relu"}, wrt=(0,), kink=True),
        Case("Activation", (literal([-1.0, 0.0, 1.0]),), {"act_type": "softsign"}, wrt=(0,), kink=True),
        Case("LeakyReLU", (literal([-1.0, 0.0, 1.0]),), {"act_type": "leaky"}, wrt=(0,), kink=True),
        Case("LeakyReLU", (literal([-1.0, 0.0, 1.0]),), {"act_type": "elu"}, wrt=(0,), kink=True),
        Case("LeakyReLU", (distinct(3, 4),), {"act_type": "selu"}, first="wrong", note="scaled twice where x < 0"),
        Case("LeakyReLU", (distinct(3, 4),), {"act_type": "leaky", "slope": 0.1}),
        Case("LeakyReLU", (distinct(3, 4),), {"act_type": "elu", "slope": 0.7}),
        Case("LeakyReLU", (distinct(2, 3, 2), positive(3)), {"act_type": "prelu"}),
        Case("LeakyReLU", (distinct(3, 4), positive(1)), {"act_type": "prelu"}),
        Case(
            "LeakyReLU",
            (distinct(3, 4),),
            {"act_type": "rrelu"},
            outputs=(0,),
            first="wrong",
            note="predict mode: the mean slope",
        ),
        Case("SoftmaxActivation", (real(3, 4),), dtype="float32"),
        Case("SoftmaxActivation", (real(2, 3, 2),), {"mode": "channel"}, dtype="float32"),
        Case("softmax", (real(2, 4), literal([2, 3], dtype="int32")), {"use_length": True, "axis": 1}),
        Case("FullyConnected", (real(2, 3), real(4, 3), real(4)), {"num_hidden": 4}),
        Case("FullyConnected", (real(2, 3), real(4, 3)), {"num_hidden": 4, "no_bias": True}),
        Case("FullyConnected", (real(2, 3, 2), real(2, 6), real(2)), {"num_hidden": 2}),
        Case("FullyConnected", (real(2, 2, 3), real(4, 3), real(4)), {"num_hidden": 4, "flatten": False}),
        Case(
            "Deconvolution",
            (real(1, 1, 2, 2, 2), real(1, 2, 2, 2, 2)),
            {"kernel": (2, 2, 2), "num_filter": 2, "stride": (1, 2, 1), "no_bias": True},
            dtype="float32",
        ),
        Case("Convolution_v1", (real(1, 2, 4, 4), real(2, 2, 3, 3), real(2)), {"kernel": (3, 3), "num_filter": 2}),
        Case("Dropout", (real(3, 4),), {"p": 0.5}, note="predict mode: identity"),
        Case("Dropout", (real(3, 4),), {"p": 0.0}, train=True),
        Case("UpSampling", (real(1, 2, 2, 3),), {"scale": 2, "sample_type": "nearest", "num_args": 1}),
        Case("UpSampling", (real(1, 1, 2, 2), real(1, 2, 1, 1)), {"scale": 2, "sample_type": "nearest", "num_args": 2}),
        Case(
            "UpSampling",
            (real(1, 1, 2, 2), real(1, 1, 1, 1)),
            {"scale": 2, "sample_type": "nearest", "num_args": 2, "multi_input_mode": "sum"},
        ),
        Case(
            "UpSampling",
            (real(1, 2, 2, 2), real(2, 1, 4, 4)),
            {"scale": 2, "sample_type": "bilinear", "num_filter": 2, "num_args": 2},
        ),
        Case("im2col", (real(1, 2, 4, 4),), {"kernel": (2, 2), "stride": (2, 2), "pad": (1, 1)}),
        Case("im2col", (real(1, 1, 4, 4),), {"kernel": (2, 2), "dilate": (2, 2)}),
        Case("col2im", (real(1, 8, 9),), {"output_size": (4, 4), "kernel": (2, 2), "stride": (1, 1)}),
        Case(
            "Correlation",
            (real(1, 2, 4, 4), real(1, 2, 4, 4)),
            {"kernel_size": 1, "max_displacement": 1, "pad_size": 1},
        ),
        Case(
            "Correlation",
            (Array((1, 2, 4, 4), "unit"), Array((1, 2, 4, 4), "above_one")),
            {"max_displacement": 1, "pad_size": 1, "is_multiply": False},
        ),
        Case(
            "BilinearSampler",
            (
                real(1, 2, 4, 4),
                literal([[[[-0.9, -0.1, 0.45], [-0.5, 0.1, 0.6]], [[-0.8, 0.2, 0.5], [-0.2, -0.6, 0.9]]]]),
            ),
        ),
        Case("GridGenerator", (real(2, 6),), {"transform_type": "affine", "target_shape": (2, 3)}, dtype="float32"),
        Case("GridGenerator", (real(1, 2, 3, 3),), {"transform_type": "warp"}, dtype="float32"),
        Case(
            "SpatialTransformer",
            (real(1, 2, 4, 4), literal([[0.7, 0.1, 0.05, -0.1, 0.6, 0.08]])),
            {"target_shape": (2, 3), "transform_type": "affine", "sampler_type": "bilinear"},
            wrt=(0, 1),
        ),
        Case(
            "ROIPooling",
            (distinct(1, 2, 4, 4), literal([[0.0, 0.0, 0.0, 3.0, 3.0]])),
            {"pooled_size": (2, 2), "spatial_scale": 1.0},
        ),
    ]
)

# oneDNN has kernels for float32 only, with failures of their own: one row more for what it takes over.
ONEDNN = (
    "Activation",
    "Convolution",
    "Deconvolution",
    "FullyConnected",
    "LeakyReLU",
    "Pooling",
    "log_softmax",
    "softmax",
)
_WIDE = [row for row in _ROWS if row.op in ONEDNN and not row.kink and row.dtype == "float64" and not row.first]
_FLOAT32 = [replace(row, dtype="float32") for row in _WIDE[:: len(ONEDNN) // 4]]


def _max_pooling(row: Case) -> bool:
    return row.op == "Pooling" and row.attrs["pool_type"] == "max"


# Outside train mode oneDNN keeps no record of where the maxima were: the gradient goes to the first entry of a window.
ROWS = [
    *_ROWS,
    *(replace(row, first="wrong") if _max_pooling(row) else row for row in _FLOAT32),
    *(replace(row, train=True) for row in _FLOAT32 if _max_pooling(row)),
]
