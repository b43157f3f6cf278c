// How a pass over all rows is divided into chunks and slices, and the chunks among threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "ekm.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"
#include "parallel.h"

namespace ekmfast {

struct Free {
  std::size_t alignment = 64;
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{alignment}); }
};
typedef std::unique_ptr<void, Free> Scratch;

// alignment: a power of two, at least 64
inline Scratch allocate_scratch(std::int64_t bytes, std::size_t alignment = 64) {
  const std::size_t size = static_cast<std::size_t>(bytes) / alignment * alignment + 2 * alignment;
  return Scratch(::operator new(size, std::align_val_t{alignment}), Free{alignment});
}

// How rows are divided into chunks, whose sums one thread forms, and chunks into slices, on which a
// kernel works at a time. It depends only on the sizes of the problem and not on the number of
// threads, so that sums are always formed in the same order.
struct Cut {
  static constexpr std::int64_t kMaxSliceRows = 32 * kRowUnit;

  std::int64_t n, slice_rows, n_slices, n_chunks;

  // max_rows: largest number of rows of a slice; sums: how many numbers a chunk sums.
  Cut(std::int64_t rows, std::int64_t max_rows, std::int64_t sums) : n(rows) {
    slice_rows = std::clamp(max_rows / kRowUnit * kRowUnit, kRowUnit, kMaxSliceRows);
    n_slices = (n + slice_rows - 1) / slice_rows;
    // Enough chunks for many threads, but so few that adding their sums is cheap, and that the sums
    // of all chunks take at most 64 MB (or that of four chunks), if all wait for a slow thread.
    sums = std::max<std::int64_t>(sums, 1);
    const std::int64_t cheap = std::clamp<std::int64_t>((1 << 20) / sums, 16, 128);
    const std::int64_t small = std::max<std::int64_t>((1 << 23) / sums, 4);
    n_chunks = std::min({n_slices, cheap, small});
  }

  // The largest number of rows, with so many numbers of T each, that stay in the L2 cache.
  template <class T>
  static std::int64_t rows_in_cache(std::int64_t numbers) {
    return (512 << 10) / (numbers * static_cast<std::int64_t>(sizeof(T)));
  }

  std::int64_t first_slice(std::int64_t chunk) const { return chunk * n_slices / n_chunks; }

  template <class Body>  // body(begin, end) for each slice of a chunk
  void for_slices(std::int64_t chunk, Body body) const {
    for (std::int64_t i = first_slice(chunk); i < first_slice(chunk + 1); ++i) {
      checkpoint();
      body(i * slice_rows, std::min(n, (i + 1) * slice_rows));
    }
  }
};

// Waking a thread takes some microseconds, so that one thread is faster for little arithmetic.
inline int useful_threads(int n_threads, double multiply_adds) {
  constexpr double kWorthAThread = 1e6;
  const double useful = multiply_adds / kWorthAThread;
  return useful < n_threads ? std::max(1, static_cast<int>(useful)) : n_threads;
}

template <class T>
Rows<T> rows_of(const Samples<T>& samples, const T* reference) {
  return {samples.x, samples.stride, samples.d, samples.sample_weight, reference};
}

// How the kernels read the rows of a slice: those of the caller, or copies multiplied by `factor`.
template <class T>
struct Slice {
  Rows<T> rows;
  std::int64_t begin, end;  // the rows of the slice among these
  std::int64_t offset;      // of the caller's rows: row `begin` is that row of the caller + offset
};

// Makes slices. Copies lie behind the scratch memory of the kernels.
template <class T>
struct Slices {
  const Samples<T>& samples;
  const T* reference;
  std::int64_t kernel_bytes, bytes;  // of scratch: what the kernels need, and together with copies

  Slices(const Samples<T>& s, const T* ref, const Cut& cut, std::int64_t for_kernels)
      : samples(s), reference(ref), kernel_bytes((for_kernels + 63) / 64 * 64) {
    const std::int64_t copy = s.factor ? cut.slice_rows * s.d * static_cast<std::int64_t>(sizeof(T)) : 0;
    bytes = kernel_bytes + copy;
  }

  Slice<T> operator()(std::int64_t begin, std::int64_t end, void* scratch) const {
    if (!samples.factor) return {rows_of(samples, reference), begin, end, 0};
    T* copy = reinterpret_cast<T*>(static_cast<char*>(scratch) + kernel_bytes);
    for (std::int64_t i = begin; i < end; ++i) copy_row(samples, i, copy + (i - begin) * samples.d);
    const T* weight = samples.sample_weight ? samples.sample_weight + begin : nullptr;
    return {{copy, samples.d, samples.d, weight, reference}, 0, end - begin, begin};
  }
};

// Runs body(chunk, scratch) for all chunks; scratch is memory of the running thread.
template <class Body>
void for_chunks(const Cut& cut, std::int64_t bytes, int n_threads, Body body) {
  n_threads = static_cast<int>(std::min<std::int64_t>(n_threads, cut.n_chunks));
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, n_threads)));
  parallel_for(cut.n_chunks, n_threads, [&](std::int64_t chunk, int slot) {
    Scratch& mine = scratch[static_cast<std::size_t>(slot)];
    if (!mine) mine = allocate_scratch(bytes);
    body(chunk, mine.get());
  });
}

// A slice of rows of type U, converted to the wider type T.
template <class T, class U>
struct Widened {
  std::vector<T> x, sample_weight, reference;
  Rows<T> rows;
  std::int64_t begin = 0, end;  // the rows of the slice among these

  Widened(const Samples<U>& samples, const U* ref, std::int64_t from, std::int64_t to)
      : reference(ref, ref + samples.d), end(to - from) {
    std::vector<U> row(static_cast<std::size_t>(samples.d));
    for (std::int64_t i = from; i < to; ++i) {
      copy_row(samples, i, row.data());
      x.insert(x.end(), row.begin(), row.end());
    }
    if (samples.sample_weight)
      sample_weight.assign(samples.sample_weight + from, samples.sample_weight + to);
    rows = {x.data(), samples.d, samples.d,
            samples.sample_weight ? sample_weight.data() : nullptr, reference.data()};
  }
};

}  // namespace ekmfast
