// Labels of rows as partitions, whatever the numbers of their clusters.
#pragma once

#include <cstdint>
#include <vector>

namespace ekmfast {

// The rows of one labelling (n,), those of each label in [0, k) together, in their order. Rows with a
// negative label are left out.
struct GroupedRows {
  std::vector<std::int64_t> first, order;  // (k + 1,) where each label begins, (n,) numbers of rows

  GroupedRows(const std::int32_t* labels, std::int64_t n, std::int64_t k);
};

// Numbers the clusters of each labelling from 0 on without gaps, in the order of their first rows.
// IN/OUT labels (n_labellings, n), each in [0, k); OUT distinct (n_labellings,), how many there are.
void renumber(std::int32_t* labels, std::int64_t n_labellings, std::int64_t n, std::int64_t k,
              std::int64_t* distinct);

// IN labels (n_labellings, n); OUT numbers (n_labellings,): equal labellings have the same number, from 0
// on in the order of their first ones.
void distinct_labels(const std::int32_t* labels, std::int64_t n_labellings, std::int64_t n,
                     std::int64_t* numbers);

// How many pairs of rows, counted twice and with each row beside itself, share a label.
struct SharedLabels {
  std::int64_t in_both, in_first, in_second;
};

// IN first (n,) in [0, height), second (n,) in [0, width).
SharedLabels shared_labels(const std::int32_t* first, const std::int32_t* second, std::int64_t n,
                           std::int64_t height, std::int64_t width);

}  // namespace ekmfast
