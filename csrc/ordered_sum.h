// The sum of parts that several threads compute, always added in the order of the parts, so that
// the rounding does not depend on the threads.
//
// A part is added as soon as all parts before it have been added, by one thread at a time, while
// the other threads compute further parts. Therefore few parts exist at a time, and a part is
// mostly still in a cache when it is added.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace ekmfast {

class OrderedSum {
 public:
  typedef std::unique_ptr<double[]> Part;

  OrderedSum(std::int64_t n_parts, std::int64_t size)
      : size_(static_cast<std::size_t>(size)),
        total_(size_),
        pending_(static_cast<std::size_t>(n_parts)) {}

  // A part of zeros, for the caller to sum into and to pass to add().
  Part take();

  // Must be called once for each index from 0 to n_parts - 1.
  void add(std::int64_t index, Part part);

  // The sum, complete when every part has been added.
  const std::vector<double>& total() const { return total_; }

 private:
  const std::size_t size_;
  std::vector<double> total_;
  std::mutex mutex_;  // guards the members below; total_ belongs to the thread that is adding
  std::vector<Part> pending_, free_;
  std::size_t next_ = 0;
  bool adding_ = false;
};

}  // namespace ekmfast
