"""Operators without a tangent rule on purpose, each with its reason. 'Zero' is not a reason: see linear.py."""

from __future__ import annotations

REASONS: dict[str, str] = {
    **dict.fromkeys(("SoftmaxOutput", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput", "SVMOutput", "MakeLoss", "make_loss", "IdentityAttachKLSparseReg", "_contrib_gradientmultiplier", "_contrib_round_ste", "_contrib_sign_ste"), "its backward is not the derivative of its forward (a loss layer or a straight-through estimator)"),
    **dict.fromkeys(("_contrib_RROIAlign", "_contrib_bipartite_matching", "_contrib_box_decode", "_contrib_box_encode", "_contrib_box_iou", "_contrib_MultiBoxTarget", "_contrib_MultiBoxDetection", "_contrib_MultiProposal", "_contrib_Proposal", "_scatter_set_nd", "_slice_assign", "_slice_assign_scalar", "_sparse_retain", "_square_sum"), "MXNet has no gradient for it"),
    **dict.fromkeys(("_contrib_PSROIPooling", "_contrib_DeformablePSROIPooling", "_contrib_count_sketch", "_contrib_fft", "_contrib_ifft"), "it runs on GPUs only"),
    "Custom": "user code that MXNet cannot look into; register a rule for it, or take finite differences",
    "_CustomFunction": "user code that MXNet cannot look into; register a rule for it, or take finite differences",
}
