"""Fixtures that several test modules share."""

import pytest

from ekmfast import _core


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Run a test once with the kernels of every instruction set of this machine."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)
