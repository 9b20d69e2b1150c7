"""Image operators that users put in front of a net."""

from __future__ import annotations

from tests.cases.case import Case, positive, real

PICTURE = positive(3, 4, 3)  # height, width, channels

ROWS = [
    Case("_image_normalize", (real(3, 2, 4),), {"mean": (0.1, 0.2, 0.3), "std": (0.5, 1.5, 2.0)}, dtype="float32"),
    Case("_image_normalize", (real(2, 1, 2, 3),), {"mean": (0.1,), "std": (0.5,)}, dtype="float32"),
    Case("_image_to_tensor", (PICTURE,), dtype="float32", first="raises"),
    Case("_image_crop", (PICTURE,), {"x": 1, "y": 0, "width": 2, "height": 2}, dtype="float32"),
    Case("_image_resize", (PICTURE,), {"size": (2, 2)}, dtype="float32", first="raises"),
    Case("_image_flip_left_right", (PICTURE,), dtype="float32", first="wrong"),
    Case("_image_flip_top_bottom", (PICTURE,), dtype="float32", first="wrong"),
    Case("_image_adjust_lighting", (positive(2, 2, 3),), {"alpha": (0.1, 0.2, 0.3)}, dtype="float32"),
]
