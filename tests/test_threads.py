"""Threads of MXNet, the caller and BLAS (hessmx/_threads.py), and NDArrays' memory (hessmx/_mxnet.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hessmx._mxnet import memory, mx
from hessmx._threads import one_blas_thread

TEAM = """
import os
from hessmx._mxnet import mx
from hessmx._threads import end_own_team

def threads():
    mx.nd.waitall()
    return len(os.listdir("/proc/self/task"))

(mx.nd.ones((4, 4)) * 2).wait_to_read()  # MXNet's own threads come with their first task
end_own_team()
before = threads()
mx.nd.array([[1.0] * 1000] * 1000)  # large enough for MXNet to copy it in parallel
copied = threads()
end_own_team()
end_own_team()
print(copied - before, threads() - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_the_calling_threads_team_is_ended():
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, "-c", TEAM], env=environment, capture_output=True, text=True, check=True)
    copied, left = map(int, run.stdout.split())
    assert (copied, left) == (2, 0)


def blas_threads():
    found = [info for info in threadpool_info() if info["user_api"] == "blas" and info["threading_layer"] != "openmp"]
    return {info["filepath"]: info["num_threads"] for info in found}


def test_blas_has_one_thread_within_and_as_many_as_before_after():
    with threadpool_limits(3, "blas"):
        before = blas_threads()
        assert set(before.values()) == {3}
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            with one_blas_thread(10):
                assert set(blas_threads().values()) == {1}
            assert set(blas_threads().values()) == {1}
            raise ZeroDivisionError
        assert blas_threads() == before
        with one_blas_thread(10**7):  # vectors long enough for more threads
            assert blas_threads() == before


def test_blas_threads_are_put_back_when_users_overlap():
    barrier = threading.Barrier(4)

    def use():
        for _ in range(50):
            barrier.wait()
            with one_blas_thread():
                time.sleep(0)

    with threadpool_limits(3, "blas"):
        users = [threading.Thread(target=use) for _ in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert set(blas_threads().values()) == {3}


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
from hessmx._mxnet import mx

net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.rnn.LSTM(4, input_size=2, layout="NTC"), mx.gluon.nn.Dense(3, in_units=12))
net.initialize()
rng = np.random.default_rng(0)
data = rng.normal(size=(5, 3, 2)), rng.integers(0, 3, 5)

def product():
    curv = hessmx.Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), data)
    return curv.hvp(np.ones(curv.num_params))

expected = product()
mx.nd.array(np.ones((1000, 1000)))  # a team in the calling thread
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
