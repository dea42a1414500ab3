r"""Compute dot products of 16-bit vectors tile by tile in registers; imports Numba.

A tile is 16 rows against 4 probes.  Each step multiplies two columns: the rows' two columns lie
side by side, so LLVM compiles the products and their sum to one instruction on x86
(``vpdpwssd`` or ``vpmaddwd``).  A row vector is loaded once for four probes, and the
64 sums stay in registers.  A loop that Numba compiles would sum each pair horizontally.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["PROBES", "ROWS", "multiply_tile"]

ROWS = 16
PROBES = 4

_INT = ir.IntType(32)
_SUMS = ir.VectorType(_INT, ROWS)
_PRODUCTS = ir.VectorType(_INT, 2 * ROWS)
_COLUMNS = ir.VectorType(ir.IntType(16), 2 * ROWS)


def _multiply_tile(
    _typing: Any,
    rows: Any,
    block: Any,
    probes: Any,
    probe: Any,
    first: Any,
    stop: Any,
    least: Any,
    sums: Any,
) -> Any:
    """Compute the products of 16 rows and 4 probes; return whether any reaches `least`.

    Parameters
    ----------
    rows : ndarray, shape (B, S, 32), int16
        Per block of 16 rows and per step: two columns of the first row, of the second, and so on.
    block : int64
    probes : ndarray, shape (P, S), int32
        Two columns of 16 bits in each number.
    probe : int64
        The first of four probes.
    first, stop : int64
        Steps to sum, ``first < stop``.
    least : int32
    sums : ndarray, shape (4, 16), int32
        The result.
    """
    size = types.int64
    signature = types.boolean(rows, size, probes, size, size, size, types.int32, sums)
    return signature, _generate


multiply_tile: Any = intrinsic(_multiply_tile)


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, block, _, probe, first, stop, least, _ = arguments
    rows, probes, sums = (
        context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 7)
    )
    steps = builder.extract_value(rows.shape, 1)
    number = steps.type
    row_data = builder.gep(rows.data, [builder.mul(builder.mul(block, steps), number(2 * ROWS))])
    probe_data = [
        builder.gep(probes.data, [builder.mul(builder.add(probe, number(p)), steps)])
        for p in range(PROBES)
    ]
    before, loop = builder.block, builder.append_basic_block("step")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(number)
    totals = [builder.phi(_SUMS) for _ in range(PROBES)]
    columns = builder.gep(row_data, [builder.mul(step, number(2 * ROWS))])
    columns = builder.load(builder.bitcast(columns, _COLUMNS.as_pointer()), align=2)
    wide = builder.sext(columns, _PRODUCTS)
    results = []
    for total, data in zip(totals, probe_data, strict=True):
        two = _repeat(builder, builder.load(builder.gep(data, [step])))
        two = builder.sext(builder.bitcast(two, _COLUMNS), _PRODUCTS)
        products = builder.mul(wide, two)
        even, odd = (
            builder.shuffle_vector(products, products, _lanes(range(start, 2 * ROWS, 2)))
            for start in (0, 1)
        )
        results.append(builder.add(total, builder.add(even, odd)))
    following = builder.add(step, number(1))
    start = ir.Constant(_SUMS, None)
    for phi, value, then in zip(
        [step, *totals], [first] + [start] * PROBES, [following, *results], strict=True
    ):
        phi.add_incoming(value, before)
        phi.add_incoming(then, loop)
    after = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    builder.position_at_end(after)
    limit, reached = _repeat(builder, least), ir.Constant(ir.VectorType(ir.IntType(1), ROWS), None)
    for p, result in enumerate(results):
        place = builder.gep(sums.data, [number(p * ROWS)])
        builder.store(result, builder.bitcast(place, _SUMS.as_pointer()), align=4)
        reached = builder.or_(reached, builder.icmp_signed(">=", result, limit))
    bits = ir.IntType(ROWS)
    return builder.icmp_unsigned("!=", builder.bitcast(reached, bits), bits(0))


def _lanes(indices: range) -> Any:
    return ir.Constant(ir.VectorType(_INT, len(indices)), list(indices))


def _repeat(builder: Any, value: Any) -> Any:
    empty = ir.Constant(_SUMS, ir.Undefined)
    one = builder.insert_element(empty, value, _INT(0))
    return builder.shuffle_vector(one, empty, ir.Constant(_SUMS, None))
