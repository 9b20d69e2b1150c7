"""Curvature matrices as SciPy LinearOperators. They know nothing of the algorithms that use them."""

from __future__ import annotations

from hessmx.operators.base import CurvatureOperator, SymmetricOperator
from hessmx.operators.matrices import Hessian

__all__ = ["CurvatureOperator", "Hessian", "SymmetricOperator"]
