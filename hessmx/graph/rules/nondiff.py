"""Operators without a tangent rule on purpose, each with its reason. 'Zero' is not a reason: see linear.py."""

from __future__ import annotations

REASONS: dict[str, str] = {
    **{
        op: "its backward is not the derivative of its forward (a loss layer)"
        for op in (
            "SoftmaxOutput",
            "LinearRegressionOutput",
            "LogisticRegressionOutput",
            "MAERegressionOutput",
            "SVMOutput",
            "MakeLoss",
            "make_loss",
            "IdentityAttachKLSparseReg",
            "_contrib_gradientmultiplier",
        )
    },
    "Custom": "user code that MXNet cannot look into; register a rule for it, or take finite differences",
    "_CustomFunction": "user code that MXNet cannot look into; register a rule for it, or take finite differences",
}
