#include "labels.h"

#include <algorithm>
#include <vector>

namespace ekmfast {

GroupedRows::GroupedRows(const std::int32_t* labels, std::int64_t n, std::int64_t k)
    : first(static_cast<std::size_t>(k + 1), 0), order(static_cast<std::size_t>(n)) {
  for (std::int64_t i = 0; i < n; ++i)
    if (labels[i] >= 0) ++first[static_cast<std::size_t>(labels[i]) + 1];
  for (std::size_t c = 1; c < first.size(); ++c) first[c] += first[c - 1];
  std::vector<std::int64_t> next(first.begin(), first.end() - 1);
  for (std::int64_t i = 0; i < n; ++i)
    if (labels[i] >= 0)
      order[static_cast<std::size_t>(next[static_cast<std::size_t>(labels[i])]++)] = i;
}

void renumber(std::int32_t* labels, std::int64_t n_labellings, std::int64_t n, std::int64_t k,
              std::int64_t* distinct) {
  constexpr std::int32_t kNone = -1;
  std::vector<std::int32_t> number(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < n_labellings; ++i) {
    std::fill(number.begin(), number.end(), kNone);
    std::int32_t next = 0;
    for (std::int32_t* label = labels + i * n; label != labels + (i + 1) * n; ++label) {
      std::int32_t& mine = number[static_cast<std::size_t>(*label)];
      if (mine == kNone) mine = next++;
      *label = mine;
    }
    distinct[i] = next;
  }
}

void distinct_labels(const std::int32_t* labels, std::int64_t n_labellings, std::int64_t n,
                     std::int64_t* numbers) {
  std::vector<const std::int32_t*> first;  // of each number
  for (std::int64_t i = 0; i < n_labellings; ++i) {
    const std::int32_t* const own = labels + i * n;
    // Different labellings mostly differ within a few rows.
    const auto alike = [&](const std::int32_t* other) { return std::equal(own, own + n, other); };
    const auto found = std::find_if(first.begin(), first.end(), alike);
    numbers[i] = found - first.begin();
    if (found == first.end()) first.push_back(own);
  }
}

namespace {

// Tables of so many numbers or fewer are small, even if there are fewer rows.
constexpr std::int64_t kSmallTable = 1 << 10;

std::int64_t sum_of_squares(const std::vector<std::int64_t>& counts) {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) sum += count * count;
  return sum;
}

std::int64_t shared_by_one(const std::int32_t* labels, std::int64_t n, std::int64_t k) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < n; ++i) ++counts[static_cast<std::size_t>(labels[i])];
  return sum_of_squares(counts);
}

std::int64_t shared_by_both(const std::int32_t* first, const std::int32_t* second, std::int64_t n,
                            std::int64_t height, std::int64_t width) {
  if (height * width <= std::max(n, kSmallTable)) {
    std::vector<std::int64_t> table(static_cast<std::size_t>(height * width));
    for (std::int64_t i = 0; i < n; ++i)
      ++table[static_cast<std::size_t>(first[i] * width + second[i])];
    return sum_of_squares(table);
  }
  // Most pairs of labels have no row, so those that have one are counted in order.
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i)
    pairs[static_cast<std::size_t>(i)] = first[i] * width + second[i];
  std::sort(pairs.begin(), pairs.end());
  std::int64_t sum = 0;
  for (auto from = pairs.begin(); from != pairs.end();) {
    const auto to = std::upper_bound(from, pairs.end(), *from);
    sum += (to - from) * (to - from);
    from = to;
  }
  return sum;
}

}  // namespace

SharedLabels shared_labels(const std::int32_t* first, const std::int32_t* second, std::int64_t n,
                           std::int64_t height, std::int64_t width) {
  return {shared_by_both(first, second, n, height, width), shared_by_one(first, n, height),
          shared_by_one(second, n, width)};
}

}  // namespace ekmfast
