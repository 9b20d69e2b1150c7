"""OpenMP teams of the calling thread, and NDArrays' memory (hessmx/_mxnet.py)."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from hessmx._mxnet import memory, mx, threads_spin

TEAMS = """
import os
from hessmx._mxnet import mx, threads_spin

def threads():
    mx.nd.waitall()
    return len(os.listdir("/proc/self/task"))

threads_spin(True)
before = threads()
threads_spin(False)
made = threads()
threads_spin(True)
print(made - before, threads() - before)
mx.nd.array([[1.0] * 1000] * 1000)  # a copy large enough for MXNet to make it in parallel
copied = threads()
threads_spin(True)
print(copied - threads())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_the_calling_threads_team_comes_and_goes():
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, "-c", TEAMS], env=environment, capture_output=True, text=True, check=True)
    made, left, copied = map(int, run.stdout.split())
    assert (made, left, copied) == (2, 0, 2)


def test_threads_may_be_asked_for_what_they_do_already():
    for spin in (True, True, False, False, True):
        threads_spin(spin)
    assert mx.nd.ones((2,)).asnumpy().tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (1, 2, 3)])
def test_memory_is_the_arrays_own(dtype, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    array = mx.nd.array(values, dtype=dtype)
    view = memory(array)
    assert view.dtype == dtype and np.array_equal(view, values)
    view[...] = 7
    assert (array.asnumpy() == 7).all()


def test_memory_waits_for_what_is_on_its_way():
    array = mx.nd.ones((300, 300))
    for _ in range(20):
        array[:] = mx.nd.dot(array, mx.nd.eye(300)) + 1
    assert (memory(array) == 21).all()


def test_memory_of_a_view_is_the_part():
    array = mx.nd.arange(12).reshape((3, 4))
    assert memory(array[1]).tolist() == [4, 5, 6, 7]


FORK = """
import os
import numpy as np
import hessmx
from hessmx._mxnet import mx, threads_spin

net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.rnn.LSTM(4, input_size=2, layout="NTC"), mx.gluon.nn.Dense(3, in_units=12))
net.initialize()
rng = np.random.default_rng(0)
data = rng.normal(size=(5, 3, 2)), rng.integers(0, 3, 5)

def product():
    curv = hessmx.Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), data)
    return curv.hvp(np.ones(curv.num_params))

expected = product()
threads_spin(False)  # a team in the calling thread
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(product(), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(product(), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_products_work_in_a_forked_child_and_after_it():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-c", FORK]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0", "True"]
