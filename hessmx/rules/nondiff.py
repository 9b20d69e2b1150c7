"""Operators without a tangent rule on purpose, each with its reason. 'Zero' is not a reason: see linear.py."""

from __future__ import annotations

_TABLE = {
    "its backward is not the derivative of its forward (a straight-through estimator)": """
        _contrib_round_ste _contrib_sign_ste""",
    "user code that MXNet cannot look into; register a rule for it, or take finite differences": """
        Custom _CustomFunction""",
    "MXNet has no gradient for it": """
        _contrib_RROIAlign _contrib_bipartite_matching _contrib_box_decode _contrib_box_encode _contrib_box_iou
        _contrib_MultiBoxTarget _contrib_MultiBoxDetection _contrib_MultiProposal _contrib_Proposal _scatter_set_nd
        _slice_assign _slice_assign_scalar _sparse_retain _square_sum _npi_percentile _npi_bincount _npi_delete
        _npi_insert_scalar _npi_insert_slice _npi_insert_tensor _npi_eig _npi_eigvals""",
    "MXNet's own gradient is a copy, which has another shape": "_image_resize",
    "it draws from a distribution whose parameters are arrays, and MXNet has no gradient for that": """
        _sample_gamma _sample_poisson _sample_negative_binomial
        _sample_generalized_negative_binomial _sample_multinomial _sample_unique_zipfian
        _npi_choice _npi_multinomial _shuffle""",
    "no rule yet: the bins it averages over are chosen inside its kernel": """
        _contrib_PSROIPooling _contrib_DeformablePSROIPooling""",
    "it runs on GPUs only": """
        _contrib_count_sketch _contrib_fft _contrib_ifft _contrib_ModulatedDeformableConvolution""",
    "the shape of its result depends on values, which no compiled graph can hold": """
        _npi_unique _npx_nonzero _contrib_boolean_mask _npi_boolean_mask_assign_scalar
        _npi_boolean_mask_assign_tensor""",
}

REASONS: dict[str, str] = {op: reason for reason, ops in _TABLE.items() for op in ops.split()}
