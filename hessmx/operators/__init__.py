"""Curvature matrices as SciPy LinearOperators. They know nothing of the algorithms that use them."""

from __future__ import annotations

from hessmx.operators.base import CurvatureOperator, Identity, Outer, SymmetricOperator
from hessmx.operators.expressions import Product, Scaled, Shift, Submatrix, Sum, Transpose
from hessmx.operators.jacobian import NTK, Jacobian
from hessmx.operators.kfac import KFAC
from hessmx.operators.matrices import (
    BlockDiagonal,
    Curved,
    Fisher,
    GaussNewton,
    Hessian,
    MonteCarloFisher,
    Residual,
    Unpenalised,
)

__all__ = [
    "KFAC",
    "NTK",
    "BlockDiagonal",
    "CurvatureOperator",
    "Curved",
    "Fisher",
    "GaussNewton",
    "Hessian",
    "Identity",
    "Jacobian",
    "MonteCarloFisher",
    "Outer",
    "Product",
    "Residual",
    "Scaled",
    "Shift",
    "Submatrix",
    "Sum",
    "SymmetricOperator",
    "Transpose",
    "Unpenalised",
]
