"""Contrib operators: attention, resizing, regions of interest, deformable layers, straight-through estimators."""

from __future__ import annotations

from tests.cases.case import Array, Case, distinct, literal, positive, real

BOXES = literal([[0.0, 0.4, 0.3, 3.1, 3.4]])
ANCHORS = literal([[[0.1, 0.2, 0.5, 0.7], [0.3, 0.1, 0.8, 0.6]]])
OTHERS = literal([[[0.15, 0.1, 0.55, 0.6], [0.25, 0.15, 0.7, 0.65]]])
SMALL_OFFSETS = Array((1, 8, 3, 3), "unit")


def _resize(shape: tuple, **attrs: object) -> Case:
    return Case("_contrib_BilinearResize2D", (real(*shape),), attrs)


ROWS = [
    Case("_contrib_interleaved_matmul_selfatt_qk", (real(3, 2, 12),), {"heads": 2}, dtype="float32"),
    Case("_contrib_interleaved_matmul_selfatt_valatt", (real(3, 1, 12), real(2, 3, 3)), {"heads": 2}, dtype="float32"),
    Case("_contrib_interleaved_matmul_encdec_qk", (real(2, 2, 4), real(3, 2, 8)), {"heads": 2}, dtype="float32"),
    Case("_contrib_interleaved_matmul_encdec_valatt", (real(3, 2, 8), real(4, 2, 3)), {"heads": 2}, dtype="float32"),
    Case("_contrib_div_sqrt_dim", (real(2, 3),)),
    Case("_contrib_quadratic", (real(2, 3),), {"a": 0.5, "b": -1.2, "c": 0.3}),
    Case("_contrib_gradientmultiplier", (real(2, 3),), {"scalar": -0.5, "is_int": False}, first="scaled"),
    Case("_contrib_round_ste", (Array((2, 3), "fraction"),), first="straight"),
    Case("_contrib_sign_ste", (real(2, 3),), first="straight"),
    Case("_contrib_AdaptiveAvgPooling2D", (real(1, 2, 4, 5),), {"output_size": (2, 3)}),
    Case("_contrib_AdaptiveAvgPooling2D", (real(2, 2, 3, 3),), {"output_size": (1,)}),
    Case("_contrib_AdaptiveAvgPooling2D", (real(1, 2, 3, 4),)),
    _resize((1, 2, 3, 3), height=5, width=4),
    _resize((1, 1, 4, 4), height=2, width=3, align_corners=False),
    _resize((1, 2, 2, 3), scale_height=2.0, scale_width=1.5, mode="odd_scale"),
    Case("_contrib_BilinearResize2D", (real(1, 1, 3, 3), real(1, 1, 4, 5)), {"mode": "like"}, wrt=(0,)),
    Case(
        "_contrib_ROIAlign", (real(1, 2, 4, 4), BOXES), {"pooled_size": (2, 2), "spatial_scale": 1.0, "sample_ratio": 2}
    ),
    Case(
        "_contrib_ROIAlign",
        (real(1, 4, 3, 3), BOXES),
        {"pooled_size": (2, 2), "spatial_scale": 0.8, "sample_ratio": 1, "position_sensitive": True, "aligned": True},
    ),
    Case(
        "_contrib_RROIAlign",
        (real(1, 1, 5, 5), literal([[0.0, 2.1, 2.2, 2.5, 1.9, 20.0]])),
        {"pooled_size": (2, 2), "spatial_scale": 1.0, "sampling_ratio": 2},
        first="raises",
    ),
    Case(
        "_contrib_PSROIPooling",
        (real(1, 4, 3, 3), BOXES),
        {"spatial_scale": 1.0, "output_dim": 1, "pooled_size": 2, "group_size": 2},
    ),
    Case(
        "_contrib_DeformablePSROIPooling",
        (real(1, 4, 3, 3), BOXES, real(1, 2, 2, 2)),
        {"spatial_scale": 1.0, "output_dim": 1, "group_size": 2, "pooled_size": 2, "trans_std": 0.1},
    ),
    Case(
        "_contrib_DeformableConvolution",
        (real(1, 2, 4, 4), SMALL_OFFSETS, real(2, 2, 2, 2), real(2)),
        {"kernel": (2, 2), "num_filter": 2},
    ),
    Case(
        "_contrib_ModulatedDeformableConvolution",
        (real(1, 2, 4, 4), SMALL_OFFSETS, positive(1, 4, 3, 3), real(2, 2, 2, 2), real(2)),
        {"kernel": (2, 2), "num_filter": 2},
        first="raises",
        note="the backward pass is GPU only",
    ),
    Case("_contrib_box_iou", (ANCHORS, OTHERS), wrt=(0,), first="dropped"),
    Case("_contrib_box_nms", (distinct(4, 6),), {"overlap_thresh": 0.5, "valid_thresh": -9.0}),
    Case("_contrib_box_decode", (real(1, 2, 4), ANCHORS), wrt=(0,), first="dropped"),
    Case("_contrib_bipartite_matching", (distinct(3, 4),), {"threshold": 0.01}, wrt=(0,)),
    Case("_contrib_MultiBoxPrior", (real(1, 2, 3, 3),), {"sizes": (0.5,)}, dtype="float32"),
    Case(
        "_contrib_count_sketch",
        (real(2, 4), literal([[0.0, 2.0, 1.0, 2.0]]), literal([[1.0, -1.0, 1.0, 1.0]])),
        {"out_dim": 3},
        first="raises",
        note="GPU only",
    ),
    Case("_contrib_fft", (real(2, 4),), first="raises", note="GPU only"),
    Case("_contrib_ifft", (real(2, 8),), first="raises", note="GPU only"),
    Case(
        "_contrib_hawkesll",
        (
            positive(2, 3),
            positive(3),
            positive(3),
            positive(2, 3),
            positive(2, 4),
            literal([[0, 1, 2, 1], [2, 0, 1, 0]], dtype="int32"),
            literal([4.0, 3.0]),
            literal([9.0, 8.0]),
        ),
        wrt=(0, 1, 2),
        outputs=(0,),
    ),
]
