// What the drivers of sparse rows share: sparse.cpp and sparse_mixture.cpp. How rows are divided into
// blocks, and how sums over all rows are formed in a fixed order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "chunks.h"
#include "kernels/kernels.h"
#include "kept.h"
#include "large_pages.h"
#include "ordered_sum.h"
#include "parallel.h"
#include "simd/dispatch.h"
#include "sparse.h"

namespace ekmfast {
namespace {

typedef std::int64_t i64;

// Columns whose lines are made or read at a time, so that they stay in the L1 cache.
constexpr i64 kTileColumns = 64;
// Rows of a block, whose weights are computed at a time.
constexpr i64 kBlockRows = 240;
// Numbers of the weights of a slab: all its weights are computed before the second product.
constexpr i64 kSlabNumbers = i64{1} << 20;
// If the lines of all columns have no more numbers, a chunk of rows has sums of its own. Otherwise
// a strip of columns has sums of its own.
constexpr i64 kNarrow = i64{1} << 16;

inline const KernelTable& table() { return kernel_table(isa_in_use()); }

template <class U, class I>
const SparseKernels<U, I>& sparse_kernels();
template <>
inline const SparseKernels<float, std::int32_t>& sparse_kernels() { return table().sparse32; }
template <>
inline const SparseKernels<float, i64>& sparse_kernels() { return table().sparse32_long; }
template <>
inline const SparseKernels<double, std::int32_t>& sparse_kernels() { return table().sparse64; }
template <>
inline const SparseKernels<double, i64>& sparse_kernels() { return table().sparse64_long; }

template <class U, class I, class Body>
auto with_types(const SparseSamples& s, Body body) {
  const SparseRows<U, I> rows{static_cast<const U*>(s.values), static_cast<const I*>(s.columns),
                              s.start.data(), s.n_stored() - 1,
                              s.sample_weight.empty() ? nullptr : s.sample_weight.data()};
  return body(rows, sparse_kernels<U, I>());
}

// Calls body(rows, kernels) with the types of the rows.
template <class Body>
auto with_rows(const SparseSamples& s, Body body) {
  if (s.is_float)
    return s.is_long ? with_types<float, i64>(s, body) : with_types<float, std::int32_t>(s, body);
  return s.is_long ? with_types<double, i64>(s, body) : with_types<double, std::int32_t>(s, body);
}

inline i64 padded(i64 k) { return (k + kLaneUnit - 1) / kLaneUnit * kLaneUnit; }

inline i64 n_blocks(i64 rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// Runs body(begin, end, scratch) for blocks of rows begin to end; `size` numbers of scratch a thread.
template <class Body>
void for_blocks(i64 begin, i64 end, i64 size, int n_threads, Body body) {
  n_threads = static_cast<int>(std::min<i64>(n_threads, n_blocks(end - begin)));
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, n_threads)));
  parallel_for(n_blocks(end - begin), n_threads, [&](i64 block, int slot) {
    checkpoint();
    Scratch& mine = scratch[static_cast<std::size_t>(slot)];
    if (!mine) mine = allocate_scratch(size * static_cast<i64>(sizeof(double)));
    const i64 first = begin + block * kBlockRows;
    body(first, std::min(end, first + kBlockRows), static_cast<double*>(mine.get()));
  });
}

// Bounds of strips of columns with about equally many numbers each, one strip a thread. They determine
// which thread adds what, but not the order of any sum. More strips than threads would be slower: a
// strip reads all rows, and finds its columns in each.
inline std::vector<i64> strips_of(const SparseSamples& s, int n_threads) {
  std::vector<i64> bounds{0};
  i64 seen = 0;
  for (i64 j = 0; j + 1 < s.d; ++j) {
    seen += s.counts[static_cast<std::size_t>(j)];
    const i64 n_bounds = static_cast<i64>(bounds.size());
    if (n_bounds < n_threads && seen * n_threads >= s.n_stored() * n_bounds) bounds.push_back(j + 1);
  }
  bounds.push_back(s.d);
  return bounds;
}

// Sums over all rows. `weigh(begin, end, weights, totals)` writes the weights (end - begin, kp) of a
// block and adds to its `totals` (size,); `scatter(begin, end, left, right, weights, lines)` adds the
// products of the weights and the rows, in the columns left <= j < right, to lines (right - left, width);
// `take(lines, left, right, add)` gives the sums of these columns to the caller, or adds them to what it
// has. OUT totals (size,). Without rows and with many columns nothing is taken.
//
// Narrow rows: the sums of a chunk of rows are formed at once and added in the order of the chunks.
// Otherwise the sums of a chunk would take as much memory as the centroids, and as long to add as to
// form. The weights of a slab of rows are computed first, in parallel over rows, and then the sums of
// strips of columns, in parallel over strips: a column is summed by one thread, in the order of rows.
template <class Weigh, class Scatter, class Take>
void sum_lines(const SparseSamples& s, i64 kp, i64 width, i64 size, int n_threads, Weigh weigh,
               Scatter scatter, Take take, double* totals) {
  const i64 d = s.d;
  std::fill(totals, totals + size, 0.0);
  if (d * width <= kNarrow) {
    const i64 blocks = n_blocks(s.n), lines = d * width;
    const i64 n_chunks = std::min<i64>(blocks, std::clamp<i64>((1 << 20) / (lines + size), 16, 128));
    OrderedSum all(n_chunks, lines + size);
    n_threads = static_cast<int>(std::min<i64>(n_threads, n_chunks));
    std::vector<KeptNumbers> scratch(static_cast<std::size_t>(std::max(1, n_threads)));
    parallel_for(n_chunks, n_threads, [&](i64 chunk, int slot) {
      KeptNumbers& mine = scratch[static_cast<std::size_t>(slot)];
      if (!mine) mine = KeptNumbers(s.memory, kBlockRows * kp);
      OrderedSum::Part part = all.take();
      for (i64 b = chunk * blocks / n_chunks; b < (chunk + 1) * blocks / n_chunks; ++b) {
        checkpoint();
        const i64 begin = b * kBlockRows, end = std::min(s.n, begin + kBlockRows);
        weigh(begin, end, mine.get(), part.get() + lines);
        scatter(begin, end, 0, d, mine.get(), part.get());
      }
      all.add(chunk, std::move(part));
    });
    take(all.total().data(), 0, d, false);
    std::copy(all.total().begin() + lines, all.total().end(), totals);
    return;
  }
  const std::vector<i64> strips = strips_of(s, n_threads);
  const i64 n_strips = static_cast<i64>(strips.size()) - 1;
  const i64 slab = std::max<i64>(1, kSlabNumbers / (kp * kBlockRows)) * kBlockRows;
  const KeptNumbers weights(s.memory, std::min(slab, s.n) * kp);
  std::vector<KeptNumbers> scratch(static_cast<std::size_t>(n_strips));
  i64 widest = 0;
  for (i64 i = 0; i < n_strips; ++i)
    widest = std::max(widest, strips[static_cast<std::size_t>(i + 1)] - strips[static_cast<std::size_t>(i)]);
  for (i64 begin = 0; begin < s.n; begin += slab) {
    poll_between_calls();
    const i64 end = std::min(s.n, begin + slab);
    std::vector<double> parts(static_cast<std::size_t>(n_blocks(end - begin) * size));
    parallel_for(n_blocks(end - begin), n_threads, [&](i64 block, int) {
      checkpoint();
      const i64 first = begin + block * kBlockRows;
      weigh(first, std::min(end, first + kBlockRows), weights.get() + (first - begin) * kp,
            parts.data() + block * size);
    });
    for (std::size_t i = 0; i < parts.size(); ++i) totals[i % static_cast<std::size_t>(size)] += parts[i];
    parallel_for(n_strips, n_threads, [&](i64 strip, int slot) {
      const i64 left = strips[static_cast<std::size_t>(strip)], right = strips[static_cast<std::size_t>(strip + 1)];
      KeptNumbers& mine = scratch[static_cast<std::size_t>(slot)];
      if (!mine) mine = KeptNumbers(s.memory, widest * width);
      std::fill(mine.get(), mine.get() + (right - left) * width, 0.0);
      for (i64 first = begin; first < end; first += kBlockRows) {
        checkpoint();
        scatter(first, std::min(end, first + kBlockRows), left, right,
                weights.get() + (first - begin) * kp, mine.get());
      }
      take(mine.get(), left, right, begin > 0);
    });
  }
}

// out (k, d) = lines (last - first, width) of columns first to last, or these are added to it.
inline void take_lines(const double* lines, i64 first, i64 last, i64 width, i64 k, i64 d, bool add,
                       double* out) {
  for (i64 j = first; j < last; j += kTileColumns)
    table().from_lines(lines + (j - first) * width, j, std::min(last, j + kTileColumns), width, k, d,
                       add, out);
}
}  // namespace
}  // namespace ekmfast
