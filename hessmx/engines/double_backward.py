"""`autograd.grad(create_graph=True)` over the graph lowered to operators whose second derivatives MXNet has right."""

from __future__ import annotations

NAME = "double-backward"
