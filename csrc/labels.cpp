#include "labels.h"

#include <algorithm>
#include <vector>

namespace ekmfast {

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

}  // namespace ekmfast
