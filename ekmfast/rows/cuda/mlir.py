"""Device functions for numba-cuda-mlir, whose instructions are written in MLIR.

`layer` has the same functions for numba-cuda. The import needs a GPU, since numba-cuda-mlir asks it
what to compile for.
"""

from __future__ import annotations

from typing import Any

from ekmfast.rows.cuda.compiler import cuda


def _of_float32(name: str, body: str) -> Any:
    """A function of a float32 ``%x``; the body computes the float32 ``%result``."""
    return cuda.intrin.define(f"""
        func.func private @ekmfast_{name}(%x: f32) -> f32 attributes {{always_inline}} {{
            {body}
            return %result : f32
        }}
    """)


def _instruction(name: str, instruction: str) -> Any:
    return _of_float32(
        name, f'%result = llvm.inline_asm "{instruction} $0, $1;", "=f,f" %x : (f32) -> f32'
    )


exp2_32 = _instruction("exp2", "ex2.approx.ftz.f32")
reciprocal_32 = _instruction("reciprocal", "rcp.approx.ftz.f32")
leading_bits = _of_float32(
    "leading_bits",
    """
            %mask = arith.constant -8192 : i32
            %bits = arith.bitcast %x : f32 to i32
            %kept = arith.andi %bits, %mask : i32
            %result = arith.bitcast %kept : i32 to f32
    """,
)
