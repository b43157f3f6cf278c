"""Fixtures that several test modules share, and tests of TorchScript where there is none."""

import pytest

from ekmfast import _core

NO_TORCHSCRIPT = "PyTorch does not support TorchScript from Python 3.14 on"


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Run a test once with the kernels of every instruction set of this machine."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(scope="session")
def torchscript():
    """Skip tests of programs that write TorchScript where that is impossible."""
    pytest.importorskip("torch", reason="the autoencoder is an extra")
    from ekmfast.autoencoder import torchscript

    if not torchscript.is_supported():
        pytest.skip(NO_TORCHSCRIPT)


def skip_without_torchscript():
    """Skip a test whose call of a function raises the error that there is no TorchScript."""
    try:
        return (yield)
    except NotImplementedError as error:
        if NO_TORCHSCRIPT not in str(error):
            raise
        pytest.skip(NO_TORCHSCRIPT)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    return (yield from skip_without_torchscript())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from skip_without_torchscript())
