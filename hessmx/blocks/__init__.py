"""Gluon blocks: maxout layers, dense nets, quadratic forms, and nets with their biases folded into the weights."""

from hessmx.blocks.dense import dense_net
from hessmx.blocks.folding import fold_bias, unfold_bias
from hessmx.blocks.maxout import Maxout, MaxoutConv2D
from hessmx.blocks.quadratic import QuadraticForm

__all__ = ["Maxout", "MaxoutConv2D", "QuadraticForm", "dense_net", "fold_bias", "unfold_bias"]
