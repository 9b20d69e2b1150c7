"""Fused operators: an operator and its tangent in one piece of NumPy, with an adjoint written by hand.

For the few layers whose tangent in MXNet's operators would be hundreds of small calls, one after the other (recurrent
steps). Kernels see arrays and know nothing of graphs; `operator.py` makes a Symbol of one, rules use it. Where a new
one goes: a class here beside the others, tested in tests/rules/fused.
"""

from hessmx.rules.fused.operator import OPERATOR, Kernel, fused, kernel

__all__ = ["OPERATOR", "Kernel", "fused", "kernel"]
