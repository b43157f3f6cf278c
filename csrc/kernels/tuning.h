// The constants that were chosen for speed: they change how fast results come, and by the order of
// sums their last digits, but not what is computed. "Measured" ones had a benchmark decide.
#pragma once

#include <cstdint>

#include "simd/isas.h"

namespace ekmfast {

// ---------------------------------------------------------------------------------------------
// Of one instruction set. These are for 16 registers and were measured with AVX2; a set for which
// others are better has its own below.

namespace {

template <Isa isa>
struct Tuning {
  // Register tiles: of the first product, centroids x 3 vectors of samples (12 accumulators, 3
  // samples and a broadcast fill 16 registers); of the second, centroids x vectors of features.
  static constexpr int kTileCentroids = 4;
  static constexpr int kProductCentroids = 4, kProductVectors = 3;
  // Above so many shuffles the transpose is faster.
  static constexpr int kMaxShuffles = 8;
  // Below so many features gathering nearly hard weights is slower.
  static constexpr std::int64_t kGatherMinD = 64;
  // Whether the second product asks for rows that come later: it took a tenth more time.
  static constexpr bool kProductAsksAhead = false;
};

template <>
struct Tuning<Isa::avx512> {
  static constexpr int kTileCentroids = 8;
  static constexpr int kProductCentroids = 6, kProductVectors = 4;
  static constexpr int kMaxShuffles = 24;          // measured
  static constexpr std::int64_t kGatherMinD = 30;  // measured
  static constexpr bool kProductAsksAhead = true;  // measured: a fifth less time if memory bounds
};

// 24 accumulators, 3 samples and a broadcast leave 4 of 32 registers; the rest is not measured.
template <>
struct Tuning<Isa::neon> : Tuning<Isa::base> {
  static constexpr int kTileCentroids = 8;
  static constexpr int kProductCentroids = 6, kProductVectors = 4;
};

#ifdef EKMFAST_ISA
typedef Tuning<Isa::EKMFAST_ISA> Tuned;  // of the set whose kernels are being compiled
#endif

}  // namespace

// ---------------------------------------------------------------------------------------------
// How rows are cut

// Blocks are multiples of this many rows, whatever the instruction set.
constexpr std::int64_t kRowUnit = 48;

// A panel holds so many vectors of samples.
constexpr int kPanelVectors = 3;

// Vectors of samples of which the parts of J are summed in T before they are added to doubles.
constexpr int kRunVectors = 8;

// A block is worked off in parts: what the stages write for each other should stay in the L1 cache,
// or, where that would leave too few rows to share a product's sums, in the L2 cache.
constexpr std::int64_t kPartBytesL1 = 28 << 10;
constexpr std::int64_t kPartBytesL2 = 512 << 10;
constexpr std::int64_t kPartRowsL1 = 2 * kRowUnit;

// ---------------------------------------------------------------------------------------------
// Prefetch distance (ahead.inl, pack.inl)

// Rows are prefetched panel by panel, and once more when a panel is packed: the hardware prefetcher
// cannot follow this many streams.
constexpr std::int64_t kBytesAhead = 8 << 10;
constexpr int kPanelsAhead = 2;                // at least
constexpr std::int64_t kBytesNear = 64 << 10;  // up to which they go to the L1 cache, else the L2
constexpr int kVectorsAhead = 4;

// Up to so many features some panels are packed at once, which are a call's worth of work together.
constexpr int kVeryShort = 4;

// ---------------------------------------------------------------------------------------------
// The second product (product.inl)

// From this many features on, the second product reads rows; below, samples stay in the lanes.
constexpr std::int64_t kRowProductMinD = 30;

// It takes so many rows at a time: a strip of kProductVectors of their features stays in the L1
// cache for all centroids.
constexpr std::int64_t kStripRows = 2 * kRowUnit;

// Up to so many centroids a strip is read where it lies, and centred each time; for more of them a
// copy pays.
constexpr std::int64_t kInPlaceMaxK = 64;

// ---------------------------------------------------------------------------------------------
// Nearly hard weights (gather.inl)

// Gathering reads a row for one centroid, where the tiles read it for kProductCentroids: it pays if
// no more than this share of the weights matters, and with so many centroids.
constexpr double kSparseBelow = 0.3;
constexpr std::int64_t kSparseMinK = 16;
// The density is judged by about so many centroids.
constexpr std::int64_t kSparseSample = 32;

constexpr int kGatherVectors = 8;
constexpr int kGatherUnit = 4;  // rows that gather_tile may take at a time

// ---------------------------------------------------------------------------------------------
// Few centroids of many features (dots.inl)

// Up to so many centroids of at least so many features are multiplied without panels: measured,
// with AVX2 and AVX-512. Below, sums across vectors cost more than a transpose.
constexpr std::int64_t kDotMaxK = 4;
template <class T>
constexpr std::int64_t kDotMinD = 1024 / sizeof(T);

constexpr int kDotRows = 2;
// Rows are as long as pages, at whose ends the processor's own prefetching stops.
constexpr int kDotAhead = 4;  // rows

// ---------------------------------------------------------------------------------------------
// Few centroids of few features (tiny.inl)

// Above, the sums no longer fit the registers.
constexpr int kTinyMaxK = 4;
constexpr int kTinyMaxD = 4;
constexpr int kTinyMaxSize = 8;        // K D
constexpr std::int64_t kTinyRun = 32;  // vectors; measured: 8 take a tenth more time

}  // namespace ekmfast
