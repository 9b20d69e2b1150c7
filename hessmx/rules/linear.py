"""Operators that are linear in some inputs, and those whose derivative is zero."""

from __future__ import annotations

from hessmx.graph.site import total
from hessmx.rules.kinds import ALL, Rule, linear, same, zero

RULES: dict[str, Rule] = {}

# linear in the first input; the others (indices, shapes, masks) do not move
for _op in """
    sum mean broadcast_axis broadcast_to Reshape Flatten transpose SwapAxis expand_dims squeeze slice
    slice_axis SliceChannel reverse tile repeat depth_to_space space_to_depth diag cast_storage _copy
    negative _mul_scalar _div_scalar broadcast_like reshape_like slice_like _split_v2 pick take gather_nd
    scatter_nd SequenceLast SequenceReverse im2col col2im Crop degrees radians Cast amp_cast
    _contrib_BilinearResize2D _contrib_AdaptiveAvgPooling2D _linalg_extractdiag _linalg_makediag
    _linalg_extracttrian _linalg_maketrian _identity_with_attr_like_rhs
    _image_crop
""".split():
    RULES[_op] = linear()

# linear in all inputs together
for _op in """
    elemwise_sub Concat stack broadcast_add broadcast_sub _rnn_param_concat amp_multicast
""".split():
    RULES[_op] = linear(ALL)

RULES.update(
    {
        "where": linear(1, 2),
        "Pad": linear(constant_value=0),
        "SequenceMask": linear(value=0),
        "_plus_scalar": same(),
        "_minus_scalar": same(),
        "_rminus_scalar": linear(scalar=0),
        "_scatter_plus_scalar": same(),
        "_scatter_minus_scalar": same(),
        "_image_normalize": linear(mean=0),
        "_image_adjust_lighting": same(),
        "Embedding": linear(1),
        "_contrib_index_copy": linear(0, 2),
    }
)

# sums of arrays of one shape: what does not move adds nothing
for _op in ("elemwise_add", "add_n"):
    RULES[_op] = Rule("linear", lambda s: [total(s.ts)])

# the derivative is zero wherever it exists
for _op in """
    BlockGrad zeros_like ones_like shape_array size_array argmax argmin argmax_channel argsort one_hot sign round rint
    ceil floor trunc fix _equal _not_equal _greater _greater_equal _lesser _lesser_equal _logical_and _logical_or
    _logical_xor logical_not _equal_scalar _not_equal_scalar _greater_scalar _greater_equal_scalar _lesser_scalar
    _lesser_equal_scalar _logical_and_scalar _logical_or_scalar _logical_xor_scalar broadcast_equal
    broadcast_not_equal broadcast_greater broadcast_greater_equal broadcast_lesser broadcast_lesser_equal
    broadcast_logical_and broadcast_logical_or broadcast_logical_xor _zeros _ones _full _arange _linspace _eye
    _contrib_arange_like _unravel_index _ravel_multi_index
    all_finite multi_all_finite _histogram _zeros_without_dtype _contrib_index_array _contrib_getnnz
    _contrib_MultiBoxPrior
""".split():
    RULES[_op] = zero()
