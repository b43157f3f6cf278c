// The constants that were chosen for speed: they change how fast results come, and by the order of
// sums their last digits, but not what is computed.
#pragma once

#include <cstdint>

#include "simd/isas.h"

namespace ekmfast {

// ---------------------------------------------------------------------------------------------
// Code paths that exist for speed alone. A path stays if it saves at least 5 % on a shape that people
// use. bench/code_paths.py builds the kernels without one path after the other
// (-DEKMFAST_WITHOUT=name), compares their results and times them; bench/results/code-paths.md holds
// all figures. Behind each path: time without it / time with it, N x K x D, float32 unless said.
// AMD EPYC (Zen 5), AVX-512 unless said, one thread, commit c565f2d.

enum class Path {
  none,

  // tiny.inl: few centroids of few features
  tiny,        // 1.68, 1000k x 3 x 2
  tiny_slice,  // vectors of a slice are kept for further problems: 1.14, 100k x 3 x 2, 16 problems

  // dots.inl: few centroids of many features
  dots,      // 1.83, 50k x 3 x 1024
  dot_rows,  // kDotRows rows at a time: 1.14, 50k x 4 x 768 (AVX2); AVX-512 differs from run to run

  // pack.inl, transpose.inl, unpack.inl
  short_rows,     // packers of rows shorter than a vector: 1.19, assign 1000k x 3 x 2
  very_short,     // some panels are packed at once, kVeryShort: 1.08, 1000k x 3 x 2, hard
  shuffles,       // fewer shuffles than a transpose, kMaxShuffles: 1.48, weights 1000k x 3 x 2
  unpack,         // weights are stored by transposing: 1.87, weights 1000k x 3 x 2
  shared_panels,  // further problems read the panels of the first: 1.66, 20k x 5 x 10, 176 problems

  // prefetch.inl
  prefetch_panels,   // the memory of later panels: 2.03, 1000k x 8 x 8, float64
  // a few lines with each feature, not all at once: 1.38, closest 100k x 6 x 128, 4 problems, float64
  prefetch_spread,
  prefetch_pack,     // once more while packing, kPrefetchVectors: 1.10, 20k x 10 x 768
  prefetch_dots,     // kDotPrefetchRows: 1.58, 50k x 3 x 1024
  // rows of the second product where none are packed: 1.32, 50k x 3 x 1024, float64
  prefetch_product,

  // scratch.inl
  parts,     // a slice is worked off in parts: 1.14, 20k x 5 x 10, 176 problems, float64
  parts_l1,  // of kPartBytesL1: 1.15, 20k x 5 x 10, 176 problems, float64

  // product.inl: the second product
  row_product,   // reads rows, from kRowProductMinD features on: 1.33, 100k x 64 x 128, float64
  lane_product,  // samples stay in the lanes, below: 2.64, 20k x 5 x 10, 176 problems
  in_place,      // rows are read where they lie, up to kInPlaceMaxK centroids: 1.73, 50k x 3 x 1024
  // of rows, for more centroids: 1.35, 20k x 100 x 1024, float64 (AVX2); 1.06, 20k x 500 x 512,
  // float64 (AVX-512)
  copies,
  vector_pairs,  // tiles of two vectors for what a wide tile leaves: 1.14, 200k x 16 x 32

  // gather.inl: nearly hard weights
  gather,  // 1.48, 100k x 64 x 128, hard, float64

  // accumulate.inl: weights that a caller gives
  given_rows,     // are read row by row, not packed: 1.13, accumulate 200k x 16 x 32, float64
  short_columns,  // sums of fewer columns than a vector has lanes: 4.30, accumulate 1000k x 3 x 2

  // exp2.inl, weigh.inl, assign.inl
  // 2^x by a table, F::kLookUp, for float64: 1.16, 100k x 3 x 2, 16 problems, float64
  lookup,
  reciprocal,     // no powers where the fuzzifier is 2: 1.83, 200k x 16 x 32, fuzzy, float64
  distance_sums,  // four sums of a distance at a time: 1.23, assign 50k x 3 x 1024
};

#ifndef EKMFAST_WITHOUT
#define EKMFAST_WITHOUT none
#endif
constexpr bool uses(Path path) { return path != Path::EKMFAST_WITHOUT; }

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
  // Second moments (mixture.inl): features x features; 9 accumulators and 3 loaded vectors.
  static constexpr int kMomentFeatures = 3;
  // Above so many shuffles the transpose is faster.
  static constexpr int kMaxShuffles = 8;
  // Gathering nearly hard weights is slower below so many features, or K D.
  static constexpr std::int64_t kGatherMinD = 64, kGatherMinSize = 1024;
  // Whether the second product prefetches rows where dots.inl made the scores. With AVX2 that takes
  // 1.08 to 1.16 times as long at 50k x 3 x 1024.
  static constexpr bool kPrefetchAfterDots = false;
};

template <>
struct Tuning<Isa::avx512> {
  static constexpr int kTileCentroids = 8;
  static constexpr int kProductCentroids = 6, kProductVectors = 4;
  static constexpr int kMomentFeatures = 5;
  static constexpr int kMaxShuffles = 24;
  // Measured with hard weights, time without gathering / with it: 16 x 32 .62, 32 x 32 .61, 16 x 50
  // .90, 16 x 64 .94, 64 x 32 .87; but 32 x 50 1.31, 32 x 64 .98 (float64 1.19), 16 x 128 1.11,
  // 64 x 50 1.40, 256 x 128 1.54.
  static constexpr std::int64_t kGatherMinD = 48, kGatherMinSize = 1536;
  static constexpr bool kPrefetchAfterDots = uses(Path::prefetch_product);
};

// 24 accumulators, 3 samples and a broadcast leave 4 of 32 registers; the rest is not measured.
template <>
struct Tuning<Isa::neon> : Tuning<Isa::base> {
  static constexpr int kTileCentroids = 8;
  static constexpr int kProductCentroids = 6, kProductVectors = 4;
  static constexpr int kMomentFeatures = 5;
};

#ifdef EKMFAST_ISA
typedef Tuning<Isa::EKMFAST_ISA> Tuned;  // of the set whose kernels are being compiled
#endif

}  // namespace

// ---------------------------------------------------------------------------------------------
// How rows are cut

// Slices are multiples of this many rows, whatever the instruction set.
constexpr std::int64_t kRowUnit = 48;

// A panel holds so many vectors of samples.
constexpr int kPanelVectors = 3;

// At most so many vectors of the rows' parts of J are summed in T before they are added to doubles.
constexpr int kCostVectors = 8;

// A slice is worked off in parts: what the stages write for each other should stay in the L1 cache,
// or, where that would leave too few rows to share a product's sums, in the L2 cache.
constexpr std::int64_t kPartBytesL1 = 28 << 10;
constexpr std::int64_t kPartBytesL2 = 512 << 10;
constexpr std::int64_t kPartRowsL1 = 2 * kRowUnit;

// ---------------------------------------------------------------------------------------------
// Prefetch distances (prefetch.inl, pack.inl)

// Rows are prefetched panel by panel, this many bytes before they are packed, and once more while a
// panel is packed: the hardware prefetcher cannot follow this many streams.
constexpr std::int64_t kPrefetchBytes = 8 << 10;
constexpr int kPrefetchPanels = 2;  // at least
// The distance within a row while it is packed.
constexpr int kPrefetchVectors = 4;

// Rows of at most so many features are so little work that several panels are packed by one call.
constexpr int kVeryShort = 4;

// ---------------------------------------------------------------------------------------------
// The second product (product.inl)

// From this many features on, the second product reads rows; below, samples stay in the lanes.
constexpr std::int64_t kRowProductMinD =
    !uses(Path::row_product) ? 1 << 20 : uses(Path::lane_product) ? 30 : 0;

// Up to so many centroids, rows are read where they lie, and centred each time; for more of them a
// copy pays.
constexpr std::int64_t kInPlaceMaxK =
    !uses(Path::copies) ? 1 << 20 : uses(Path::in_place) ? 64 : 0;

// ---------------------------------------------------------------------------------------------
// Nearly hard weights (gather.inl)

// Gathering reads a row for one centroid, where the tiles read it for kProductCentroids: it pays if
// no more than this share of the weights matters, and with so many centroids.
constexpr double kSparseBelow = 0.3;
constexpr std::int64_t kGatherMinK = 16;
// The share is taken of about so many columns.
constexpr std::int64_t kSparseSample = 32;

constexpr int kGatherVectors = 8;

// ---------------------------------------------------------------------------------------------
// Few centroids of many features (dots.inl)

// Up to so many centroids of at least so many features are multiplied without panels. With fewer
// features the sums across a vector cost more than a transpose.
constexpr std::int64_t kDotMaxK = 4;
template <class T>
constexpr std::int64_t kDotMinD = 1024 / sizeof(T);

constexpr int kDotRows = uses(Path::dot_rows) ? 2 : 1;
// Prefetch distance. Rows are about as long as pages, at whose ends the hardware prefetcher stops.
constexpr int kDotPrefetchRows = 4;

// ---------------------------------------------------------------------------------------------
// Few centroids of few features (tiny.inl)

// Above, the sums no longer fit the registers.
constexpr int kTinyMaxK = 4;
constexpr int kTinyMaxD = 4;
constexpr int kTinyMaxSize = 8;  // K D

}  // namespace ekmfast
