"""Indexing, embedding, sequences, one-hot."""

from __future__ import annotations

from tests.cases.case import Case, index, literal, real

IDS = index(3, high=5)
TABLE = {"input_dim": 5, "output_dim": 4, "dtype": "float32"}
LENGTHS = literal([1.0, 3.0])

ROWS = [
    Case("take", (real(4, 3), index(5, high=4)), {"axis": 0}),
    Case("take", (real(4, 3), index(2, 2, high=3)), {"axis": 1}),
    Case("take", (real(4, 3), literal([-1.0, 5.0, 2.0])), {"axis": 0, "mode": "wrap"}),
    Case("take", (real(4, 3), literal([-1.0, 5.0, 2.0])), {"axis": 0, "mode": "clip"}),
    Case("take", (real(2, 3, 2), index(2, high=3)), {"axis": -2}),
    Case("pick", (real(3, 4), index(3, high=4)), {"axis": 1}),
    Case("pick", (real(3, 4), index(3, 1, high=4)), {"axis": -1, "keepdims": True}),
    Case("pick", (real(3, 4), index(4, high=3)), {"axis": 0}),
    Case("pick", (real(3, 4), literal([-1.0, 4.0, 9.0])), {"axis": 1, "mode": "wrap"}),
    Case("pick", (real(2, 3, 2), index(2, 2, high=3)), {"axis": 1, "mode": "clip"}),
    Case("gather_nd", (real(3, 4), literal([[0.0, 2.0, 2.0], [1.0, 3.0, 3.0]]))),
    Case("gather_nd", (real(3, 4), literal([[0.0, 2.0, 0.0]]))),
    Case("scatter_nd", (real(3), literal([[0.0, 2.0, 1.0], [1.0, 3.0, 0.0]])), {"shape": (3, 4)}),
    Case("scatter_nd", (real(2, 4), literal([[0.0, 2.0]])), {"shape": (3, 4)}),
    Case(
        "_scatter_set_nd", (real(3, 4), real(2), literal([[0.0, 2.0], [1.0, 3.0]])), {"shape": (3, 4)}, first="raises"
    ),
    Case("one_hot", (index(3, high=4),), {"depth": 4, "dtype": "float64"}, wrt=(0,), kink=True),
    Case(
        "one_hot",
        (index(3, high=4),),
        {"depth": 4, "on_value": 2.0, "off_value": -1.0, "dtype": "float64"},
        wrt=(0,),
        kink=True,
    ),
    Case("Embedding", (index(2, 3, high=5), real(5, 4)), {"input_dim": 5, "output_dim": 4, "dtype": "float64"}),
    Case("Embedding", (IDS, real(5, 4)), {**TABLE, "sparse_grad": True}, dtype="float32"),
    Case("_contrib_SparseEmbedding", (IDS, real(5, 4)), TABLE, dtype="float32"),
    Case("SequenceMask", (real(3, 2, 2), LENGTHS), {"use_sequence_length": True, "value": -1.0}),
    Case("SequenceMask", (real(2, 3, 2), LENGTHS), {"use_sequence_length": True, "axis": 1}),
    Case("SequenceMask", (real(3, 2, 2),)),
    Case("SequenceLast", (real(3, 2, 2), LENGTHS), {"use_sequence_length": True}),
    Case("SequenceLast", (real(2, 3, 2), LENGTHS), {"use_sequence_length": True, "axis": 1}),
    Case("SequenceLast", (real(3, 2, 2),), first="wrong", note="backward writes at uninitialised indices; may crash"),
    Case("SequenceReverse", (real(3, 2, 2), LENGTHS), {"use_sequence_length": True}),
    Case("SequenceReverse", (real(3, 2, 2),)),
    Case("_ravel_multi_index", (literal([[1.0, 2.0], [0.0, 1.0]]),), {"shape": (3, 4)}, wrt=(0,), kink=True),
    Case("_unravel_index", (literal([5.0, 7.0]),), {"shape": (3, 4)}, wrt=(0,), kink=True),
    Case("_contrib_boolean_mask", (real(4, 3), literal([1.0, 0.0, 1.0, 1.0]))),
    Case("_contrib_index_copy", (real(4, 3), literal([2.0, 0.0], dtype="int32"), real(2, 3))),
    Case("_contrib_index_array", (real(2, 3),)),
    Case("_contrib_arange_like", (real(2, 3),), {"axis": 1}),
    Case("_contrib_getnnz", (real(3, 2),), first="raises", note="csr input only"),
    Case("_sparse_retain", (real(3, 2), literal([0.0, 2.0])), first="raises", note="row_sparse input only"),
]
