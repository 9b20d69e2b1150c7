"""What a random net is made of: one line of text for each thing that a node can be.

    "LAYER ; CALL"    a Gluon layer made in __init__, and how forward calls it ("{f}({0})" where only the layer is given)
    "CALL"            an expression over the tensors {0}, {1}, {2}; all of one shape

`<a|b|c>` is one of a, b, c; `<word>` is drawn by `WORDS`. A line that does not fit the tensor fails when it is run, and
another one is drawn: nobody has to say which sizes an operator accepts.
"""

from __future__ import annotations

import re
from typing import Callable, Mapping

import numpy as np

Draw = Callable[[np.random.Generator], object]


def _channels(rng: np.random.Generator) -> int:
    """Multiples of 8 half the time: oneDNN keeps those in blocks."""
    return int(rng.choice([8, 16, 24, 32, 64], p=[0.4, 0.3, 0.1, 0.15, 0.05]) if rng.random() < 0.5 else rng.integers(1, 13))


WORDS: Mapping[str, Draw] = {
    "units": _channels,
    "few": lambda rng: int(rng.integers(2, 6)),
    "channels": _channels,
    "act": lambda rng: rng.choice(["None", "'relu'", "'tanh'", "'sigmoid'", "'softrelu'", "'softsign'"]),
    "bool": lambda rng: rng.choice(["True", "False"]),
    "number": lambda rng: round(float(rng.uniform(0.3, 1.7)), 2),
}

# By the number of axes of the tensor; axis 0 is the samples and stays. "any" fits all.
HYBRID: Mapping[str, str] = {
    "any": """
        nn.Dense(<units>, activation=<act>, use_bias=<bool>, flatten=<bool>)
        nn.Dense(<units>, activation=<act>)
        nn.Activation(<'relu'|'tanh'|'sigmoid'|'softrelu'|'softsign'>)
        nn.LeakyReLU(0.2)
        nn.PReLU()
        nn.ELU()
        nn.SELU()
        nn.GELU()
        nn.Swish()
        nn.BatchNorm(axis=<1|-1>, center=<bool>, scale=<bool>)
        nn.BatchNorm()
        nn.LayerNorm(axis=<1|-1>)
        InstanceNorm()
        nn.GroupNorm(num_groups=<1|2|4>)
        Dropout(<0.3|0.5>)
        nn.Flatten()
        nn.HybridLambda(<'tanh'|'relu'|'sigmoid'>)
        F.<tanh|sin|cos|arctan|erf|sigmoid|softsign|relu|abs|square|expm1|arcsinh|identity|negative>({0})
        F.<sqrt|cbrt|log|rsqrt|reciprocal|gammaln|log1p|rcbrt|arccosh>(F.square({0}) + <number>)
        F.<exp|sinh|cosh|tan|degrees>({0} * 0.2)
        F.<arcsin|arctanh|arccos|erfinv>(F.tanh({0}) * 0.9)
        F.hard_sigmoid({0})
        F.smooth_l1({0}, scalar=<number>)
        F.clip({0}, <-0.7|-0.2>, <0.4|0.9>)
        F.<softmax|log_softmax|softmin>({0}, axis=<1|-1>)
        F.L2Normalization({0}, mode=<'instance'|'channel'>)
        {0} * <number> + <number>
        <number> - {0}
        <number> / (F.square({0}) + 1)
        ({0} ** 2) * <number>
        (F.square({0}) + 0.1) ** <number>
        {0} + {1}
        {0} - {1}
        {0} * {1}
        {0} / (F.square({1}) + 1)
        F.<maximum|minimum|broadcast_add|broadcast_mul|broadcast_sub|broadcast_maximum|broadcast_hypot>({0}, {1})
        F.broadcast_power(F.square({0}) + <number>, F.tanh({1}))
        F.add_n({0}, {1}, {2})
        F.where({0} > 0.1, {1}, {2} * <number>)
        F.concat({0}, {1}, dim=1)
        F.concat({0}, {1}, {2}, dim=<1|-1>)
        F.stack({0}, {1}, axis=<1|-1>)
        F.<sum|mean|max|min|nansum>({0}, axis=<1|-1>, keepdims=<bool>)
        F.<sum|mean>({0}, axis=0, exclude=True, keepdims=True)
        F.norm({0} + 2, axis=<1|-1>, keepdims=True)
        F.prod(F.tanh({0}) + 1.2, axis=<1|-1>)
        F.reverse({0}, axis=<1|-1>)
        F.split({0}, num_outputs=2, axis=1)[<0|1>]
        (lambda p: F.tanh(p[0]) * p[1])(F.split({0}, num_outputs=2, axis=<1|-1>))
        (lambda p: p[0] * F.sqrt(p[1] + 0.1))(F.moments({0}, axes=<(1,)|(-1,)>, keepdims=<bool>))
        F.broadcast_div(F.broadcast_sub({0}, F.mean({0}, axis=1, keepdims=True)), F.sqrt(F.mean(F.square({0}), axis=1, keepdims=True) + 0.1))
        F.slice_axis({0}, axis=<1|-1>, begin=<0|1>, end=<2|3|None>)
        F.expand_dims({0}, axis=<1|-1>)
        F.reshape({0}, shape=(0, -1))
        F.reshape({0}, shape=(0, -1, <2|4>))
        F.tile({0}, reps=(1, 2))
        F.repeat({0}, repeats=2, axis=<1|-1>)
        F.topk({0}, axis=-1, k=2, ret_typ='value')
        F.sort({0}, axis=-1)
        F.take({0}, F.arange(<1|2|3>), axis=<1|-1>)
        F.zeros_like({0}) + {0} * F.ones_like({0})
        F.broadcast_mul({0}, F.sigmoid(F.mean({0}, axis=<1|-1>, keepdims=True)))
        F.mean({0}, axis=0, exclude=True, keepdims=True) + F.sum({0}, axis=1, keepdims=True) * 0.1
    """,
    "2": """
        nn.Dense(<units>, activation=<act>) ; {0} + {f}({0})
        F.FullyConnected({0}, F.slice_axis({0}, axis=0, begin=0, end=1) * 0 + 0.3, num_hidden=1, no_bias=True)
        F.dot({0}, F.ones_like(F.slice_axis({0}, axis=0, begin=0, end=1)), transpose_b=True)
        F.expand_dims(F.expand_dims({0}, axis=2), axis=3)
        F.pick({0}, F.zeros_like(F.slice_axis({0}, axis=1, begin=0, end=1)), axis=1, keepdims=True)
        F.cumsum({0}, axis=1)
        F.khatri_rao({0}, {0})
        F.reshape({0}, shape=(0, <2|4|8>, -1))
        F.reshape({0}, shape=(0, <2|4|8>, 2, -1))
    """,
    "3": """
        nn.Conv1D(<channels>, <1|2|3>, padding=<0|1|2>, strides=<1|1|2>, dilation=<1|1|2>, activation=<act>, use_bias=<bool>)
        nn.Conv1D(<channels>, 3, padding=1, groups=<1|2|4>)
        nn.Conv1DTranspose(<channels>, <1|2|3>, strides=<1|2>, padding=<0|1>)
        nn.<Max|Avg>Pool1D(<2|3>, strides=<None|1|2>, padding=<0|1>, ceil_mode=<bool>)
        nn.Global<Max|Avg>Pool1D()
        rnn.<LSTM|GRU>(<units>, layout='NTC', num_layers=<1|1|2>, bidirectional=<True|False|False>)
        rnn.RNN(<units>, activation=<'tanh'|'relu'>, layout='NTC')
        rnn.LSTM(<units>, layout='TNC') ; F.swapaxes({f}(F.swapaxes({0}, 0, 1)), 0, 1)
        unrolled(rnn.<LSTM|GRU|RNN>Cell(<units>), <few>)
        unrolled(rnn.ResidualCell(rnn.GRUCell(<units>)), <few>)
        unrolled(rnn.<LSTM|RNN>Cell(<units>), <few>, last=True)
        Attention(<few>, <1|2>)
        F.batch_dot({0}, {0}, transpose_b=True)
        F.batch_dot(F.softmax(F.batch_dot({0}, {1}, transpose_b=True), axis=-1), {1})
        F.linalg_gemm2({0}, {1}, transpose_b=True, alpha=<number>)
        F.linalg_syrk({0}, alpha=<number>)
        F.linalg_gemm({0}, {1}, {2} * 0.5, transpose_b=<bool>)
        spd({0}, F)
        F.linalg_potrf(spd({0}, F))
        F.linalg_inverse(spd({0}, F))
        F.linalg_sumlogdiag(F.linalg_potrf(spd({0}, F)))
        F.linalg_trsm(F.linalg_potrf(spd({0}, F)), {0})
        F.linalg_trmm(F.linalg_potrf(spd({0}, F)), {0})
        F.linalg_extractdiag(spd({0}, F))
        F.linalg_slogdet(spd({0}, F))[1]
        F.linalg_gelqf(spd({0}, F))[1]
        F.transpose({0}, axes=(0, 2, 1))
        F.swapaxes({0}, 1, 2)
        F.SequenceReverse(F.swapaxes({0}, 0, 1))
        F.expand_dims({0}, axis=<1|2|3>)
        F.smooth_l1(F.sum({0}, axis=2), scalar=1)
        F.UpSampling(F.expand_dims({0}, axis=2), scale=2, sample_type='nearest')
    """,
    "4": """
        nn.Conv2D(<channels>, <1|2|3>, padding=<0|1>, strides=<1|1|2>, activation=<act>, use_bias=<bool>)
        nn.Conv2D(<channels>, 3, padding=1, activation=<act>)
        nn.Conv2D(<channels>, 3, padding=<1|2>, dilation=<1|2>, groups=<1|2|8>)
        nn.Conv2D(<channels>, 1) ; F.concat({0}, {f}({0}), dim=1)
        nn.Conv2DTranspose(<channels>, <2|3>, strides=<1|2>, padding=<0|1>, activation=<act>)
        nn.<Max|Max|Avg>Pool2D(<2|3>, strides=<None|1|2>, padding=<0|1>, ceil_mode=<bool>)
        nn.MaxPool2D(<2|3>)
        nn.AvgPool2D(2, count_include_pad=<bool>, padding=<0|1>)
        nn.Global<Max|Avg>Pool2D()
        nn.MaxPool2D(2, layout='NHWC')
        F.Pooling({0}, kernel=(2, 2), pool_type=<'lp'|'sum'>, p_value=2)
        nn.ReflectionPad2D(1)
        nn.GlobalAvgPool2D() ; F.broadcast_mul({0}, F.sigmoid({f}({0})))
        F.broadcast_mul({0}, F.sigmoid(F.mean({0}, axis=(2, 3), keepdims=True)))
        nn.Conv2D(<channels>, 1) ; F.concat({0}, F.broadcast_like(F.mean({f}({0}), axis=(2, 3), keepdims=True), {0}, lhs_axes=(2, 3), rhs_axes=(2, 3)), dim=1)
        F.contrib.AdaptiveAvgPooling2D({0}, output_size=<1|2>)
        F.contrib.BilinearResize2D({0}, height=<3|5>, width=4)
        F.UpSampling({0}, scale=2, sample_type='nearest')
        F.LRN({0}, nsize=3)
        F.pad({0}, mode=<'constant'|'edge'|'reflect'>, pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
        F.depth_to_space({0}, 2)
        F.space_to_depth({0}, 2)
        F.transpose({0}, axes=<(0, 2, 3, 1)|(0, 3, 1, 2)>)
        F.slice({0}, begin=(None, 0, 1, 0), end=(None, None, None, -1))
        F.sum({0}, axis=(2, 3))
        F.<max|mean>({0}, axis=(2, 3))
        F.reshape({0}, shape=(0, 0, -1))
        F.im2col({0}, kernel=(2, 2))
        F.expand_dims({0}, axis=2)
        F.Crop({0}, offset=(1, 0), h_w=(2, 2))
    """,
    "5": """
        nn.Conv3D(<channels>, <1|2>, padding=<0|1>, strides=<1|2>, activation=<act>)
        nn.Conv3DTranspose(<channels>, 2)
        nn.<Max|Avg>Pool3D(2, ceil_mode=<bool>)
        nn.Global<Max|Avg>Pool3D()
        F.mean({0}, axis=(2, 3, 4))
        F.reshape({0}, shape=(0, 0, 0, -1))
    """,
}

# Only for a Block: Python control flow, NumPy-like indexing, arrays made on the way.
IMPERATIVE: Mapping[str, str] = {
    "any": """
        ({0} * 1.5 if float({0}.sum().asscalar()) > 0 else {0} - 0.5)
        sum(({0} * (0.3 * i + 1) for i in range(<2|3>)), {0} * 0)
        {0}[:, 0:1] * {0}
        {0} + mx.nd.array(np.linspace(-1, 1, {0}.shape[-1]), dtype={0}.dtype)
        {0}.astype('float64').tanh().astype({0}.dtype)
        mx.nd.concat(*[{0}.slice_axis(axis=1, begin=i, end=i + 1).tanh() for i in range({0}.shape[1])], dim=1)
    """,
}

NUMPY: Mapping[str, str] = {
    "any": """
        nn.Dense(<units>, activation=<None|'relu'|'tanh'>, flatten=<bool>)
        nn.Dense(<units>)
        nn.BatchNorm()
        nn.LayerNorm()
        F.np.<tanh|sin|cos|arctan|square|abs|expm1|arcsinh|negative>({0})
        F.np.<sqrt|cbrt|log|reciprocal|log1p>(F.np.square({0}) + <number>)
        F.np.exp({0} * 0.2)
        F.npx.<sigmoid|relu|erf>({0})
        F.npx.<softmax|log_softmax>({0}, axis=-1)
        F.npx.activation({0}, act_type=<'softsign'|'tanh'|'relu'>)
        F.npx.leaky_relu({0}, act_type='gelu')
        {0} * <number> + <number>
        <number> - {0}
        <number> / (F.np.square({0}) + 1)
        ({0} ** 2) * <number>
        {0} + {1}
        {0} - {1}
        {0} * {1}
        {0} / (F.np.square({1}) + 1)
        F.np.<maximum|minimum|hypot|multiply|add>({0}, {1})
        F.np.where({0} > 0.1, {1}, {2})
        F.np.concatenate([{0}, {1}], axis=<1|-1>)
        F.np.stack([{0}, {1}], axis=1)
        F.np.<sum|mean|max|min|var|std>({0}, axis=<1|-1>, keepdims=<bool>)
        F.np.clip({0}, -0.5, <number>)
        F.np.flip({0}, axis=-1)
        F.np.swapaxes({0}, 1, -1)
        F.np.expand_dims({0}, axis=1)
        F.np.repeat({0}, 2, axis=1)
        F.np.cumsum({0}, axis=-1)
        F.npx.reshape({0}, (-2, -1))
        {0}.mean(axis=1, keepdims=True) * {0}
    """,
    "3": """
        F.np.einsum('nij,nkj->nik', {0}, {1})
        F.np.matmul({0}, F.np.swapaxes({1}, 1, 2))
        nn.Conv1D(<channels>, 3, padding=1)
        rnn.LSTM(<few>, layout='NTC')
    """,
    "4": """
        nn.Conv2D(<channels>, 3, padding=1, activation=<None|'relu'|'tanh'>)
        nn.MaxPool2D(2)
        nn.GlobalAvgPool2D()
        F.np.mean({0}, axis=(2, 3))
    """,
}

# label kind ; loss of one output (N, ...) and its label, one value a sample
LOSSES = """
    class ; gluon.loss.SoftmaxCELoss()
    class ; gluon.loss.SoftmaxCELoss()
    simplex ; gluon.loss.SoftmaxCELoss(sparse_label=False)
    real ; gluon.loss.L2Loss()
    real ; gluon.loss.HuberLoss(rho=<number>)
    real ; gluon.loss.L1Loss()
    binary ; gluon.loss.SigmoidBCELoss()
    sign ; gluon.loss.LogisticLoss()
    sign ; gluon.loss.HingeLoss()
    sign ; gluon.loss.SquaredHingeLoss()
    simplex ; gluon.loss.KLDivLoss(from_logits=False)
    real ; lambda z, y: ((z - y) ** 2).sum(axis=1)
    real ; lambda z, y: ((z - y) ** 4).mean(axis=1) + (z * y).sum(axis=1) * 0.1
    real ; lambda z, y: ((z - y) ** 2 + <number>).log().sum(axis=1)
    count ; lambda z, y: (z.exp() - y * z).sum(axis=1)
    real ; lambda z, y: ((z * z + 0.5).log() * 0.5 + 0.5 * (y - 1) ** 2 / (z * z + 0.5)).sum(axis=1)
    real ; lambda z, y: (z.mean(axis=1) - y.mean(axis=1)) ** 2 + sum(((z[:, i:i + 1].tanh() * 4).exp() + 1).log().sum(axis=1) / 4 for i in range(<few>))
    real ; lambda z, y: (z.mean(axis=1) - y.mean(axis=1)) ** 2 + sum((1 + ((z - y).tanh().slice_axis(axis=1, begin=0, end=1) * (i + 1)).exp()).log().sum(axis=1) for i in range(9))
    real ; lambda z, y: gluon.loss.L2Loss()(z.tanh(), y) + gluon.loss.L1Loss()(z, y)
"""
PLAIN_LOSS = "lambda z, y: (z ** 2).reshape((0, -1)).sum(axis=1)"
_CHOICE = re.compile(r"<([^<>]+)>")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def fill(line: str, rng: np.random.Generator) -> str:
    """The line with its choices made."""

    def choose(match: re.Match) -> str:
        options = match.group(1).split("|")
        if len(options) == 1 and options[0] in WORDS:
            return str(WORDS[options[0]](rng))
        return str(rng.choice(options))

    return _CHOICE.sub(choose, line)


def kind(filled: str) -> str:
    """The layer or first operator of a filled line: what counts are kept by."""
    layer = re.match(r"(?:nn|rnn)?\.?([A-Z]\w+)\(", filled.split(";")[0].strip())
    if layer:
        return layer.group(1)
    if filled.startswith("unrolled"):
        return re.findall(r"rnn\.(\w+)", filled)[0]
    operator = re.search(r"F\.((?:np\.|npx\.|contrib\.)?\w+)", filled)
    return operator.group(1) if operator else "arithmetic" if "asscalar" not in filled else "branch"
