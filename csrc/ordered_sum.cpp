#include "ordered_sum.h"

#include <algorithm>
#include <utility>

namespace ekmfast {

OrderedSum::Part OrderedSum::take() {
  Part part;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      part = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!part) return Part(new double[size_]());
  std::fill(part.get(), part.get() + size_, 0.0);
  return part;
}

void OrderedSum::add(std::int64_t index, Part part) {
  std::unique_lock<std::mutex> lock(mutex_);
  pending_[static_cast<std::size_t>(index)] = std::move(part);
  if (adding_) return;  // the thread that is adding will add this part too
  adding_ = true;
  while (next_ < pending_.size() && pending_[next_]) {
    Part mine = std::move(pending_[next_]);
    lock.unlock();
    for (std::size_t i = 0; i < size_; ++i) total_[i] += mine[i];
    lock.lock();
    free_.push_back(std::move(mine));
    ++next_;
  }
  adding_ = false;
}

}  // namespace ekmfast
